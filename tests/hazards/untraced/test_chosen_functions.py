"""Hazard 35: which function is given a block is decided while the code runs, so that nobody knows who gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.hazards.blocks import assert_stays, batch_of, block
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from torch import Tensor


def run(layer: Any, x: Any) -> Any:
    return layer(x)


def taps(layer: Any, x: Any) -> Any:
    return layer.conv(x)


def runs_a_default(layer: Any, x: Any, function: Any = None) -> Any:
    return (function or run)(layer, x)


def replaced(layer: Any, x: Any) -> Any:
    return layer(x)


class Tools:
    def runs(self, layer: Any, x: Any) -> Any:
        return layer.conv(x)


TOOLS: Any = Tools()
TAPS: Any = taps


class Chooses(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(x) * batch_of(x) + self.tap(x)

    def runs(self, layer: Any, x: Any) -> Any:
        return layer(x)


def replaces(module: Any, x: Any) -> Any:
    global replaced  # noqa: PLW0603 - this is the point
    before, replaced = replaced, taps
    y = replaced(module.block, x)
    replaced = before
    return y


WAYS: dict[str, Any] = {
    "one of two": lambda m, x: (taps if x.shape[0] else run)(m.block, x),
    "the first": lambda m, x: (TAPS or run)(m.block, x),
    "and or": lambda m, x: ((x.shape[0] > 0 and TAPS) or run)(m.block, x),
    "in a helper": lambda m, x: runs_a_default(m.block, x, taps),
    "of an object": lambda m, x: (TOOLS if x.shape[0] else m).runs(m.block, x),
    "of another": lambda m, x: (TOOLS or m).runs(m.block, x),
    "replaced": replaces,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_goes_to_a_function_that_is_chosen_keeps_its_norm(way: str) -> None:
    cls: Any = type("Choosing", (Chooses,), {"tap": WAYS[way], "__module__": __name__})
    assert_stays(trained(cls(block=block())), ["block.bn"])
