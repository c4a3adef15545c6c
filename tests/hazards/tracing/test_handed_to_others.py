"""Hazard 35: untraced code hands a block to others, which take a layer out of it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, batch_of, block
from tests.support.helpers import Model, folds, trained, unchanged, values


class Tools:
    """Functions of a class that is none of the model's."""

    @staticmethod
    def static(model: Any, x: Tensor) -> Any:
        return model.conv(x)

    @classmethod
    def of_class(cls, model: Any, x: Tensor) -> Any:
        return model.conv(x)

    @staticmethod
    def inside(model: Any, x: Tensor) -> Any:
        return model.block.conv(x)


class Foreign(nn.Module):
    """A class of modules of which the model has none."""

    def forward(self, x: Tensor) -> Any:
        return self.block.conv(x)  # type: ignore[operator,union-attr]


class Made:
    """An object that is made with the model, and takes a layer out of it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Any:
        return self.model.block.conv(x)


class Taps(Model):
    """A block that is called as a whole, and the layer in it by itself in some way."""

    def forward(self, x: Tensor) -> Any:
        return self.block(x) * batch_of(x), self.tap(x)


WAYS: dict[str, Any] = {
    "a static method": lambda self, x: Tools.static(self.block, x),
    "a class method": lambda self, x: Tools.of_class(self.block, x),
    "a static method that gets the model": lambda self, x: Tools.inside(self, x + 0),
    "a forward of another class": lambda self, x: Foreign.forward(self, x + 0),
    "a call of an object": lambda self, x: Made(self)(x),
    "a partial": lambda self, x: functools.partial(Tools.inside, self)(x),
    "a table of the file": lambda self, x: TABLE["tap"][0](self, x + 0),
}
TABLE: dict[str, Any] = {"tap": [lambda model, x: model.block.conv(x)]}


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_others_get_stays(way: str) -> None:
    model = trained(type("Tapping", (Taps,), {"tap": WAYS[way], "__module__": __name__})(block=block()))
    with unchanged(model):
        fused = fx_fuse(model)
    assert_right(model, fused, [values(2, 3, 6, 6)])
    assert not folds(fused)


def test_a_block_that_others_only_ask_for_its_class_folds() -> None:
    tap = lambda self, x: torch.relu(x) if isinstance(self, nn.Module) else x  # noqa: E731
    model = trained(type("Asking", (Taps,), {"tap": tap, "__module__": __name__})(block=block()))
    fused = fx_fuse(model)
    assert_right(model, fused, [values(2, 3, 6, 6)])
    assert folds(fused) == ["block.bn"]
