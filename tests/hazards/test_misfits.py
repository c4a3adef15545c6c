"""Layers with tensors of sizes that do not fit each other, as after a pruning by hand: they stay, and it is told."""

from __future__ import annotations

import pytest
from torch import nn

from fxfuse import FuseError, Reason, explain, fuse_conv_bn
from tests.helpers import assert_fuses, trained, unchanged, values
from tests.samples import parameter


def wrong_bias() -> nn.Module:
    layer = nn.Conv2d(3, 8, 3)
    layer.bias = parameter(3)
    return layer


def wrong_groups() -> nn.Module:
    layer = nn.Conv2d(3, 8, 3)
    layer.groups = 3
    return layer


def wrong_weight() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.weight = parameter(2, 4)
    return norm


MISFITS: list[tuple[nn.Module, nn.Module, Reason, str]] = [
    (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4), Reason.NOT_PER_CHANNEL, "8 channels"),
    (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(1), Reason.NOT_PER_CHANNEL, "8 channels, and 1 of the norm"),
    (nn.Linear(3, 8), nn.BatchNorm1d(16), Reason.NOT_PER_CHANNEL, "8 channels"),
    (nn.Conv2d(3, 8, 3), wrong_weight(), Reason.MALFORMED, "weight of 1 has shape (2, 4)"),
    (wrong_bias(), nn.BatchNorm2d(8), Reason.MALFORMED, "bias of 0 has shape (3,), for 8 channels"),
    (wrong_groups(), nn.BatchNorm2d(8), Reason.MALFORMED, "weight of 0 has shape (8, 3, 3, 3), for 3 groups"),
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
