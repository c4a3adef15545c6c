"""Transposed convolutions: a size of the result that is asked for, and kernels of one tap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import STRUCTURES, Model, Structure, assert_fuses, assert_same, folds, trained, values

SHAPE = (2, 3, 6, 5)


class Doubled(Model):
    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2] * 2, x.shape[3] * 2)
        y = self.up(x, size) if self.by_position else self.up(x, output_size=size)
        return self.bn(y)


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_norm_folds_where_the_size_of_the_result_is_asked_for(structure: Structure, by_position: bool) -> None:
    model = trained(Doubled(up=nn.ConvTranspose2d(3, 4, 3, 2, 1), bn=nn.BatchNorm2d(4), by_position=by_position))
    fused = assert_fuses(model, values(*SHAPE), folded=["bn"], structure=structure)
    assert_same(model, fused, values(1, 3, 4, 7))
    exported = fx_fuse(torch.export.export(model, (values(*SHAPE),))).module()
    assert_same(model, exported, values(*SHAPE))


class Chained(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(x, output_size=(8, 8)))


def test_layers_do_not_merge_where_the_size_of_the_result_is_asked_for() -> None:
    up = nn.ConvTranspose2d(3, 4, 3, 1)
    model = trained(Chained(up=up, last=nn.Conv2d(4, 5, 1)))
    fused = assert_fuses(model, values(2, 3, 6, 6), left={"last": Reason.MISALIGNED})
    assert not folds(fused)


POINT = {"kernel_size": 1}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_norm_folds_onwards_into_a_transposed_convolution_of_one_tap(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Sigmoid(), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 1), nn.Sigmoid()))
    assert_fuses(model, values(*SHAPE), folded=["1"], structure=structure)


@pytest.mark.parametrize(
    "more", [{"stride": 2}, {"padding": 1}, {"stride": 2, "output_padding": 1}, {"kernel_size": 2}]
)
def test_where_a_transposed_convolution_gives_more_than_it_reads_the_norm_stays(more: dict[str, int]) -> None:
    layer: nn.Module = nn.ConvTranspose2d(3, 4, **{**POINT, **more})  # type: ignore[arg-type] # which takes them
    model = trained(nn.Sequential(nn.Sigmoid(), nn.BatchNorm2d(3), layer, nn.Sigmoid()))
    fused = assert_fuses(model, values(*SHAPE), left={"1": Reason.NOT_LINEAR})
    assert Report.of(fused).skipped[0].downstream is Reason.ZERO_PADDING
