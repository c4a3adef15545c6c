"""Hazard 4: a module that is one node gets a new version: who reads its tensors by name reads the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.support.helpers import Model, Structure, assert_same, folds, trained, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.capture.hooks import Hooks


class ReadsWeight(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + F.conv2d(x, self.block[0].weight)


class ReadsScale(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.block[1].weight[:, None, None]


class ReadsStatistics(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) - self.block[1].running_mean[:, None, None]


class ReadsTied(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.block(x), self.own, self.bias)


def hooked(cls: Callable[..., nn.Module]) -> nn.Module:
    """A block with a hook stands in the graph as one node."""
    block = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))
    model: Any = trained(cls(block=block, own=nn.Parameter(values(3, 3, 1, 1))))
    model.bias = model.block[1].bias  # also the norm's
    model.block.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("cls", [ReadsWeight, ReadsScale, ReadsStatistics, ReadsTied])
def test_a_tensor_that_the_graph_reads_stays_where_its_module_is_replaced(cls: type[Model]) -> None:
    model, inputs = hooked(cls), values(2, 3, 6, 6)
    ways: list[tuple[Hooks, list[str]]] = [("keep", []), ("observe", ["block.1"])]
    for hooks, folded in ways:
        with unchanged(model):
            fused = fx_fuse(model, hooks=hooks)
        assert folds(fused) == folded
        assert_same(model, fused, inputs)


@pytest.mark.parametrize("cls", [ReadsWeight, ReadsScale, ReadsStatistics])
def test_where_the_classes_stay_the_fold_is_refused(cls: type[Model]) -> None:
    model = hooked(cls)
    fused = fx_fuse(model, structure="module")
    assert folds(fused) == []
    assert_same(model, fused, values(2, 3, 6, 6))


class Narrow(Model):
    """Computes in a narrower dtype than that of its output."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x.to(self.conv.weight.dtype))).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_narrower_dtype_rounds_inside_is_no_difference(structure: Structure, dtype: torch.dtype) -> None:
    model, inputs = trained(Narrow(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4))).to(dtype), values(2, 3, 6, 6)
    fused = fx_fuse(model, inputs, structure=structure)
    assert folds(fused) == ["bn"]
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(fused(inputs), model(inputs), rtol=tolerance, atol=tolerance)


class ReadsTwice(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(F.conv2d(x, self.conv.weight)), self.two(F.conv2d(x, self.conv.weight))


@pytest.mark.parametrize("bias", [True, False])
def test_two_norms_behind_two_functions_that_read_one_weight(structure: Structure, *, bias: bool) -> None:
    layers = {"conv": nn.Conv2d(3, 4, 1, bias=bias), "one": nn.BatchNorm2d(4), "two": nn.BatchNorm2d(4)}
    model, x = trained(ReadsTwice(**layers)), values(2, 3, 5, 5)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert sorted(folds(fused)) == ["one", "two"]
    assert_same(model, fused, x)
