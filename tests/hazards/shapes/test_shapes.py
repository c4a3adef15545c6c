"""Hazards 6, 7, 8, 9: axes: which one a norm or a constant runs along, and what proves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, unchanged, values


def linear_norm() -> nn.Sequential:
    return trained(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


def conv1d_norm() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)))


class FunctionalNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight)
        return F.batch_norm(y, self.mean, self.var, self.scale, self.shift)


def functional_norm() -> FunctionalNorm:
    statistics = {"mean": 3 * values(4), "var": values(4).exp()}
    parameters = {"scale": nn.Parameter(3 * values(4)), "shift": nn.Parameter(3 * values(4))}
    return FunctionalNorm(weight=nn.Parameter(values(4, 3, 3, 3)), **statistics, **parameters)


# A model, the name of its norm, a usual input, and one with another number of axes of which the sizes fit.
ASSUMED = [
    pytest.param(linear_norm, "1", (5, 3), (5, 4, 3), id="linear"),
    pytest.param(conv1d_norm, "1", (2, 3, 6), (3, 6), id="conv1d"),
    pytest.param(functional_norm, "batch_norm", (2, 3, 6, 6), (3, 6, 6), id="functional"),
]


@pytest.mark.parametrize(("make", "norm", "usual", "unusual"), ASSUMED)
def test_a_fold_that_assumes_batched_inputs_leaves_a_check(
    structure: Structure, make: Any, norm: str, usual: tuple[int, ...], unusual: tuple[int, ...]
) -> None:
    model = make()
    model(values(*unusual))
    fused = assert_fuses(model, values(*usual), folded=[norm], structure=structure)
    assert [decision.assumed for decision in Report.of(fused).folded] == [True]
    with pytest.raises(ValueError, match="batch"):
        fused(values(*unusual))


@pytest.mark.parametrize(("make", "norm", "usual", "unusual"), ASSUMED)
def test_a_fold_that_assumes_batched_inputs_is_refused_without_guards(
    structure: Structure, make: Any, norm: str, usual: tuple[int, ...], unusual: tuple[int, ...]
) -> None:
    model, left = make(), {norm: Reason.UNKNOWN_SHAPE}
    fused = assert_fuses(model, values(*usual), left=left, structure=structure, guards=False)
    assert_same(model, fused, values(*unusual))


@pytest.mark.parametrize(("make", "norm", "usual", "unusual"), ASSUMED)
def test_example_inputs_that_are_batched_prove_the_fold(
    structure: Structure, make: Any, norm: str, usual: tuple[int, ...], unusual: tuple[int, ...]
) -> None:
    del unusual
    inputs = values(*usual)
    options: dict[str, Any] = {"structure": structure, "guards": False, "example_inputs": inputs}
    fused = assert_fuses(make(), inputs, folded=[norm], **options)
    assert [decision.assumed for decision in Report.of(fused).folded] == [False]


@pytest.mark.parametrize(("make", "norm", "usual", "unusual"), ASSUMED)
def test_example_inputs_along_another_axis_keep_the_norm(
    structure: Structure, make: Any, norm: str, usual: tuple[int, ...], unusual: tuple[int, ...]
) -> None:
    del usual
    inputs, left = values(*unusual), {norm: Reason.NOT_PER_CHANNEL}
    assert_fuses(make(), inputs, left=left, example_inputs=inputs, structure=structure)


def test_a_norm_of_images_after_a_linear_layer_runs_along_another_axis(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm2d(4)))
    left = {"1": Reason.NOT_PER_CHANNEL}
    assert_fuses(model, values(2, 4, 4, 3), left=left, structure=structure)


def test_flatten_proves_that_a_linear_layer_gets_vectors(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)))
    fused = assert_fuses(model, values(5, 3, 4), folded=["2"], structure=structure, guards=False)
    assert [decision.assumed for decision in Report.of(fused).folded] == [False]


@pytest.mark.parametrize("inputs", [(2, 3, 6), (3, 6)])
def test_a_norm_of_instances_finds_its_axis_with_and_without_batch(
    structure: Structure, inputs: tuple[int, ...]
) -> None:
    norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    model = trained(nn.Sequential(nn.Conv1d(3, 4, 3), norm))
    assert_fuses(model, values(*inputs), folded=["1"], structure=structure, guards=False)


# -- constants


class TimesConstant(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) * self.g)


class OnlyTimesConstant(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.g


def times(g: Tensor) -> TimesConstant:
    return trained(TimesConstant(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), g=g))


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (), (1,)])
def test_a_constant_for_each_channel_is_folded(structure: Structure, shape: tuple[int, ...]) -> None:
    fused = assert_fuses(times(values(*shape)), values(2, 3, 6, 6), folded=["bn", "mul"], structure=structure)
    assert Report.of(fused).folded[0].into == ("conv",)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1), (4, 4), (2, 1, 1, 1), (2, 4, 1, 1)])
def test_a_constant_along_another_axis_is_not_folded(structure: Structure, shape: tuple[int, ...]) -> None:
    left = {"bn": Reason.NOT_PER_CHANNEL}
    assert_fuses(times(values(*shape)), values(2, 3, 6, 6), left=left, structure=structure)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 1, 1, 1), (1, 1, 1, 1, 1), (2, 1, 4, 1, 1)])
def test_a_constant_alone_along_another_axis_is_not_folded(structure: Structure, shape: tuple[int, ...]) -> None:
    model = trained(OnlyTimesConstant(conv=nn.Conv2d(3, 4, 3), g=values(*shape)))
    assert_fuses(model, values(2, 3, 6, 6), structure=structure)


class EnlargedAfterNorm(Model):
    """A fold that must be done, then one that must not."""

    def __init__(self, g: Tensor) -> None:
        super().__init__(first=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), second=nn.Conv2d(4, 4, 1), g=g)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.bn(self.first(x)).relu()) * self.g


ENLARGING = [(5, 1, 1, 1), (1, 4, 5, 1), (5,), (1, 1, 1, 1, 1)]


@pytest.mark.parametrize("shape", ENLARGING)
@pytest.mark.parametrize("proven", [False, True])
def test_a_constant_that_enlarges_the_result_is_not_folded(
    structure: Structure, shape: tuple[int, ...], *, proven: bool
) -> None:
    # The same number everywhere: only its shape tells it from a single number.
    model, inputs = EnlargedAfterNorm(g=torch.full(shape, 3.0)), values(1, 3, 3, 3)
    examples = inputs if proven else None
    assert_fuses(trained(model), inputs, folded=["bn"], structure=structure, example_inputs=examples)


def test_a_constant_that_adds_channels_is_not_folded(structure: Structure) -> None:
    model = trained(OnlyTimesConstant(conv=nn.Conv2d(3, 1, 3), g=torch.full((4, 1, 1), 3.0)))
    assert_fuses(model, values(2, 3, 6, 6), structure=structure)


# -- transposed and grouped convolutions

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
NORMS = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (4, 4), (8, 4)])
def test_grouped_and_transposed_convolutions_fold_along_their_output_axis(
    structure: Structure, convolution: Any, channels: int, groups: int
) -> None:
    axes = int(convolution.__name__[-2])
    layer = convolution(4, channels, 3, stride=2, padding=1, groups=groups)
    model = trained(nn.Sequential(layer, NORMS[axes - 1](channels)))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 4, *[7, 6, 5][:axes]))
    assert folds(fused) == ["1"]
    assert Report.of(fused).folded[0].into == ("0",)


class HalvesAlone(Model):
    """Each half of the channels has a norm of its own, or none."""

    def forward(self, x: Tensor) -> Any:
        first, second = self.conv(x).split([2, 2], 1)
        return self.norm(first), second if self.other is None else self.other(second)


@pytest.mark.parametrize("other", [None, nn.BatchNorm1d(2)])
def test_each_half_of_the_channels_takes_its_norm(structure: Structure, other: nn.Module | None) -> None:
    model = trained(HalvesAlone(conv=nn.Conv1d(3, 4, 3), norm=nn.BatchNorm1d(2), other=other))
    folded = ["norm"] if other is None else ["norm", "other"]
    fused = assert_fuses(model, values(2, 3, 6), folded=folded, structure=structure)
    assert all(decision.assumed for decision in Report.of(fused).folded)
    with pytest.raises(ValueError, match="3 axes there"):
        fused(values(3, 6))  # the split goes along another axis then
