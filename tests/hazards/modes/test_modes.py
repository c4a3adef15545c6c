"""Hazards 10, 11, 12: norms in other modes and of other classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason
from tests.support.helpers import Model, Structure, assert_fuses, trained, values


def conv_norm(norm: nn.Module) -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), norm))


def test_a_norm_in_training_mode_stays_and_the_other_is_folded(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    model[1].train()
    left = {"1": Reason.TRAINING}
    fused = assert_fuses(model, values(2, 3, 8, 8), folded=["3"], left=left, structure=structure)
    assert dict(fused.named_modules())["1"].training


class AlwaysBatchStatistics(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.mean, self.var, training=True)


class NoStatisticsAtAll(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True)


class NormFollowsTheModel(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.mean, self.var, training=self.training)


def with_statistics(cls: type[Model]) -> Model:
    return trained(cls(conv=nn.Conv2d(3, 4, 3), mean=values(4), var=values(4).exp()))


@pytest.mark.parametrize(
    ("cls", "reason"),
    [(AlwaysBatchStatistics, Reason.TRAINING), (NoStatisticsAtAll, Reason.BATCH_STATISTICS)],
)
def test_a_function_that_uses_batch_statistics_stays(structure: Structure, cls: type[Model], reason: Reason) -> None:
    left = {"batch_norm": reason}
    assert_fuses(with_statistics(cls), values(2, 3, 6, 6), left=left, structure=structure)


def test_a_function_that_follows_the_mode_of_the_model_is_folded(structure: Structure) -> None:
    model = with_statistics(NormFollowsTheModel)
    inputs = values(2, 3, 6, 6)
    assert_fuses(model, inputs, folded=["batch_norm"], structure=structure, example_inputs=inputs)


def test_a_norm_without_running_statistics_stays(structure: Structure) -> None:
    model = conv_norm(nn.BatchNorm2d(4, track_running_stats=False))
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.BATCH_STATISTICS}, structure=structure)


def test_a_frozen_norm_in_a_model_in_training_mode_is_folded(structure: Structure) -> None:
    model = conv_norm(nn.BatchNorm2d(4)).train()
    model[1].eval()
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert fused.training
    assert dict(fused.named_modules())["0"].training


def test_a_norm_behind_dropout_in_training_mode_stays(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.0), nn.BatchNorm2d(4)))
    model[1].train()
    assert_fuses(model, values(2, 3, 6, 6), left={"2": Reason.NOT_LINEAR}, structure=structure)


def test_a_norm_behind_dropout_in_evaluation_mode_is_folded(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.Identity(), nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), folded=["3"], structure=structure)


@pytest.mark.parametrize(
    "options",
    [
        {"affine": False},
        {"momentum": None},
        {"eps": 0.7},
        {"eps": 0.7, "affine": False},
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_with_other_options_is_folded(structure: Structure, options: dict[str, Any], *, bias: bool) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, **options)))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_without_weights_is_folded_into_a_linear_layer(structure: Structure, *, bias: bool) -> None:
    model = trained(nn.Sequential(nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4, affine=False)))
    assert_fuses(model, values(5, 3), folded=["1"], structure=structure)


def test_a_norm_with_a_bias_alone_is_folded(structure: Structure) -> None:
    model = conv_norm(nn.BatchNorm2d(4))
    model[1].register_parameter("weight", None)
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


def test_a_synchronised_norm_is_folded(structure: Structure) -> None:
    inputs = values(2, 3, 6, 6)
    model = conv_norm(nn.SyncBatchNorm(4))
    assert_fuses(model, inputs, folded=["1"], structure=structure, example_inputs=inputs, guards=False)


class FrozenBatchNorm2d(nn.Module):
    """The norm of detection models: buffers only, and its own arithmetic."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (getattr(self, name).reshape(1, -1, 1, 1) for name in BUFFERS)
        scale = weight * (var + self.eps).rsqrt()
        return x * scale + (bias - mean * scale)


BUFFERS = ("weight", "bias", "running_mean", "running_var")


def test_a_frozen_norm_with_its_own_arithmetic_is_folded(structure: Structure) -> None:
    model = conv_norm(FrozenBatchNorm2d(4, eps=0.3))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


def test_a_frozen_norm_after_an_activation_stays(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), FrozenBatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), left={"2": Reason.NOT_LINEAR}, structure=structure)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_norm_of_instances_with_running_statistics_is_folded(structure: Structure, dims: int) -> None:
    convolution = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1](3, 4, 3)
    cls = [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d][dims - 1]
    model = trained(nn.Sequential(convolution, cls(4, affine=True, track_running_stats=True)))
    assert_fuses(model, values(2, 3, *[5] * dims), folded=["1"], structure=structure)


def test_a_norm_of_instances_without_running_statistics_stays(structure: Structure) -> None:
    model = conv_norm(nn.InstanceNorm2d(4))
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.BATCH_STATISTICS}, structure=structure)
    model = conv_norm(nn.InstanceNorm2d(4, affine=True))
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.READ_BY}, structure=structure)
