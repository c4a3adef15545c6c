"""A norm before a flatten and a linear layer: how many inputs that layer takes says what the flatten merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

X = values(2, 3, 6, 5)


class Flattened(Model):
    """The end of a network for face recognition; the sizes of images stand nowhere."""

    def __init__(self, flatten: Callable[[Any, Tensor], Any]) -> None:
        super().__init__(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), drop=nn.Dropout(), layer=nn.Linear(48, 5))
        self.other = nn.Linear(48, 2)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Any:
        return self.flatten(self, self.norm(self.conv(x).relu()))


WAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "flatten": lambda m, y: m.layer(y.flatten(1)),
    "dropout behind": lambda m, y: m.layer(m.drop(torch.flatten(y, 1))),
    "dropout before": lambda m, y: m.layer(torch.flatten(m.drop(y), start_dim=1)),
    "view": lambda m, y: m.layer(y.view(y.size(0), -1)),
    "reshape": lambda m, y: m.layer(y.reshape(y.shape[0], -1)),
    "function": lambda m, y: F.linear(y.flatten(1), m.layer.weight),
    "two layers": lambda m, y: (m.layer(y.flatten(1)), m.other(y.flatten(1))),
    "two readers": lambda m, y: [layer(z) for z in [y.flatten(1)] for layer in (m.layer, m.other)],
    "channels last": lambda m, y: m.layer(y.permute(0, 2, 3, 1).flatten(1)),
    "channels between": lambda m, y: m.layer(y.flatten(2).flatten(1)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("example", [False, True])
def test_the_layer_takes_the_norm_in(structure: Structure, way: str, example: bool) -> None:
    model = trained(Flattened(WAYS[way]))
    assert_fuses(model, X, folded=["norm"], structure=structure, example_inputs=X if example else None)


STAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "an activation": lambda m, y: m.layer(y.flatten(1).relu()),
    "the output": lambda m, y: (m.layer(y.flatten(1)), y),
    "channels in the middle": lambda m, y: m.layer(y.permute(0, 2, 1, 3).flatten(1)),
}


@pytest.mark.parametrize("way", STAYS)
def test_it_stays_where_the_layer_does_not_say_enough(structure: Structure, way: str) -> None:
    model = trained(Flattened(STAYS[way]))
    fused = fx_fuse(model, structure=structure)
    assert folds(fused) == []
    assert_same(model, fused, X)


def test_a_layer_that_does_not_fit_raises_as_before() -> None:
    model = trained(Flattened(WAYS["flatten"]))
    model.layer = nn.Linear(50, 5).double().eval()
    fused = fx_fuse(model)
    for one in (model, fused):
        with pytest.raises(RuntimeError):
            one(X)
