"""Hazard 14: weights that are computed from parameters, where the layer is called twice or something follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fxfuse import Report, fx_fuse
from tests.support.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from tests.support.helpers import Structure


class Again(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.layer(x).relu())
        return y


class Behind(Model):
    """The check proves how many axes the value has, also behind the layer."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.layer(torch.flatten(x, 1))))
        return y


def normed() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(4, 4))


def test_a_layer_that_is_called_twice_is_computed_once_in_its_class() -> None:
    model, x = trained(Again(layer=normed())), values(3, 4)
    fused = fx_fuse(model, structure="module")
    assert type(fused.layer).__name__ == "Linear"
    assert folds(fused) == ["layer", "layer"]
    assert_same(model, fused, x)


def test_a_layer_that_is_called_twice_is_computed_once_in_a_graph() -> None:
    model, x = trained(Again(layer=normed())), values(3, 4)
    fused = fx_fuse(model)
    assert folds(fused) == ["layer", "layer"]
    assert_same(model, fused, x)


def test_the_axes_behind_a_computed_weight_are_known_at_once(structure: Structure) -> None:
    norm = nn.GroupNorm(2, 4)
    for parameter in norm.parameters():
        parameter.data = values(4)
    model, x = trained(Behind(layer=normed(), norm=norm, last=nn.Linear(4, 5))), values(3, 2, 2)
    fused = fx_fuse(model, structure=structure)
    assert folds(fused) == ["layer", "norm"]
    assert not Report.of(fx_fuse(fused, structure=structure)).folded
    assert_same(model, fused, x)
