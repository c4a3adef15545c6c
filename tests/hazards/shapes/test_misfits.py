"""Hazard 8: tensors of one layer whose sizes do not fit, as after a pruning by hand: they stay, and it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import FuseError, Reason, explain, fuse_conv_bn
from tests.support.helpers import Model, assert_fuses, folds, trained, unchanged, values
from tests.support.samples import parameter


def wrong_bias() -> nn.Module:
    layer = nn.Conv2d(3, 8, 3)
    layer.bias = parameter(3)
    return layer


def wrong_groups(groups: Any) -> nn.Module:
    layer = nn.Conv2d(3, 8, 3)
    layer.groups = groups
    return layer


def wrong_weight() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.weight = parameter(4)
    return norm


def wrong_statistics() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.running_mean = values(8, 1)
    return norm


MISFITS: list[tuple[nn.Module, nn.Module, Reason, str]] = [
    (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4), Reason.NOT_PER_CHANNEL, "8 channels"),
    (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(1), Reason.NOT_PER_CHANNEL, "8 channels, and 1 of the norm"),
    (nn.Linear(3, 8), nn.BatchNorm1d(16), Reason.NOT_PER_CHANNEL, "8 channels"),
    (nn.Conv2d(3, 8, 3), wrong_weight(), Reason.MALFORMED, "weight of 1 is of shape (4,)"),
    (nn.Conv2d(3, 8, 3), wrong_statistics(), Reason.MALFORMED, "running_mean of 1 is of shape (8, 1)"),
    (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=None), Reason.MALFORMED, "eps of 1 is None"),  # type: ignore[arg-type]
    (wrong_bias(), nn.BatchNorm2d(8), Reason.MALFORMED, "bias of 0 is of shape (3,), for 8 channels"),
    (wrong_groups(0), nn.BatchNorm2d(8), Reason.MALFORMED, "for 0 groups"),
    (wrong_groups("2"), nn.BatchNorm2d(8), Reason.MALFORMED, "for '2' groups"),
    (wrong_groups(3), nn.BatchNorm2d(8), Reason.MALFORMED, "weight of 0 is of shape (8, 3, 3, 3), for 3 groups"),
]


@pytest.mark.parametrize(("layer", "norm", "reason", "words"), MISFITS)
def test_layers_that_do_not_fit_each_other_stay(layer: nn.Module, norm: nn.Module, reason: Reason, words: str) -> None:
    model = nn.Sequential(layer, norm).eval()
    with unchanged(model):
        (decision,) = explain(model).decisions
    assert decision.reason is reason
    assert words in decision.detail
    with pytest.raises(FuseError, match="Nothing was changed"):
        fuse_conv_bn(layer, norm)


def test_a_norm_of_one_channel_beside_those_of_the_layer_folds() -> None:
    model = trained(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(1)))
    assert_fuses(model, values(5, 1, 6), folded=["1"], example_inputs=values(5, 1, 6))


class Functional(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.linear(x, self.weight, self.bias))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (1, 1)])
def test_a_bias_of_any_shape_that_torch_takes_folds(shape: tuple[int, ...]) -> None:
    model = trained(Functional(weight=parameter(4, 6), bias=parameter(*shape), norm=nn.BatchNorm1d(4)))
    assert_fuses(model, values(5, 6), folded=["norm"], example_inputs=values(5, 6))


@pytest.mark.parametrize("shape", [(1, 4), (2, 2), (4, 1, 1)])
def test_torch_counts_the_constants_of_a_norm(shape: tuple[int, ...]) -> None:
    norm: Any = nn.BatchNorm2d(4)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
    norm.weight = nn.Parameter(norm.weight.detach().reshape(shape))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"])


def test_a_bias_for_each_row_stays() -> None:
    model = trained(Functional(weight=parameter(4, 6), bias=parameter(4, 1), norm=nn.BatchNorm1d(4)))
    fused = assert_fuses(model, values(4, 6), left={"norm": Reason.MALFORMED}, example_inputs=values(4, 6))
    assert not folds(fused)
