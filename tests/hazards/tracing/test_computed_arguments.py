"""Hazard 33: arguments that are computed from shapes: none is taken for a number before it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.support.helpers import Model, assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Between(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.norm(self.conv(x))))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten to": lambda y: y.flatten(1, y.dim() - 1),
    "flatten from": lambda y: y.flatten(y.dim() - 3, -1),
    "unflatten": lambda y: y.unflatten(1, (2, y.size(1) // 2)),
    "unflatten along": lambda y: y.unflatten(y.dim() - 3, (2, 2)),
    "narrow from": lambda y: y.narrow(1, y.size(1) - 2, 2),
    "narrow by": lambda y: y.narrow(1, 0, y.size(1) - 2),
    "narrow along": lambda y: y.narrow(y.dim() - 3, 0, 2),
    "select": lambda y: y.select(1, y.size(1) - 1),
    "chunk": lambda y: y.chunk(y.size(1) // 2, 1)[0],
    "split": lambda y: y.split(y.size(1) - 2, 1)[1],
    "split into": lambda y: y.split([1, y.size(1) - 1], 1)[1],
    "slice": lambda y: y[:, y.size(1) - 3 :],
    "pad": lambda y: F.pad(y, (y.size(1) - 4, 0)),
    "pad by": lambda y: F.pad(y, (1, y.size(1) - 3), value=2.0),
    "roll": lambda y: y.roll(y.size(0), 2),
    "roll along": lambda y: y.roll(1, y.dim() - 1),
    "permute": lambda y: y.permute(0, y.dim() - 1, 2, 1),
    "move": lambda y: y.movedim(1, y.dim() - 1),
    "transpose": lambda y: y.transpose(1, y.dim() - 1),
    "mean": lambda y: y.mean(y.dim() - 1),
    "cat": lambda y: torch.cat([y, y], y.dim() - 3),
    "stack": lambda y: torch.stack([y, y], y.dim() - 3),
    "add with alpha": lambda y: torch.add(y, y.sigmoid(), alpha=y.size(1)),
    "add a constant with alpha": lambda y: torch.add(y, 2.0, alpha=y.size(1)),
    "expand": lambda y: y[:, :, :1].expand(-1, -1, y.size(1), -1),
    "repeat": lambda y: y.repeat(1, y.size(1) - 3, 1, 2),
    "shuffle": lambda y: F.channel_shuffle(y, y.size(1) // 2),
    "resize": lambda y: F.interpolate(y, size=(y.size(1), 3)),
    "reshape as": lambda y: y.reshape_as(y.transpose(2, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sizes", [True, False], ids=["sizes are known", "they are not"])
def test_the_result_is_the_same(name: str, sizes: bool) -> None:
    layers = {"conv": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "last": nn.Identity()}
    x = values(2, 3, 5, 6)
    model = trained(Between(**layers, function=FUNCTIONS[name]))
    fused = fx_fuse(model, x) if sizes else fx_fuse(model)
    assert_same(model, fused, x)
    affine = trained(Between(**{**layers, "norm": nn.Identity()}, function=lambda y: FUNCTIONS[name](y) * 3.0 + 1.0))
    assert_same(affine, fx_fuse(affine, x) if sizes else fx_fuse(affine), x)
