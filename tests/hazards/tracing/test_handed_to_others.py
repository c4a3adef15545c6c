"""Hazard 35: untraced code hands a block to others, which take a layer out of it."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, batch_of, block
from tests.support.helpers import Model, folds, trained, unchanged, values


class Tools:
    """Functions of a class that is none of the model's."""

    table: ClassVar[dict[str, Any]] = {"tap": lambda block, x: block.conv(x)}

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


class Given:
    """An object that is made with a block, and takes a layer out of it where Python calls a method."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, x: Tensor) -> Any:
        return self.block.conv(x)

    def __enter__(self) -> Any:
        return self.block.conv

    def __exit__(self, *error: object) -> None:
        return None

    def __iter__(self) -> Any:
        return iter([self.block.conv])

    def __getitem__(self, number: int) -> Any:
        return self.block.conv

    def __add__(self, x: Tensor) -> Any:
        return self.block.conv(x)

    def __getattr__(self, name: str) -> Any:
        return self.block.conv


class Kept:
    """An object that keeps a layer of the block that it is made with."""

    def __init__(self, block: Any) -> None:
        self.first = block.conv


class Descriptor:
    """One that gets the model, without being given it."""

    def __get__(self, model: Any, kind: type) -> Any:
        return self if model is None else model.block.conv


class Decorator:
    """A decorator that is a class, and calls something else."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __get__(self, model: Any, kind: type) -> Any:
        return self if model is None else functools.partial(self.run, model)

    def run(self, model: Any, x: Tensor) -> Any:
        return model.block.conv(x)


@functools.singledispatch
def dispatched(block: Any, x: Tensor) -> Any:
    return block, x


@dispatched.register
def _(block: nn.Module, x: Tensor) -> Any:
    return block.conv(x)  # type: ignore[operator]


def entered(self: Any, x: Tensor) -> Any:
    with Given(self.block) as layer:
        return layer(x)


def matched(self: Any, x: Tensor) -> Any:
    match self.block:
        case nn.Module(conv=layer):
            return layer(x)  # type: ignore[operator]


def remembered(self: Any, x: Tensor) -> Any:
    SEEN["block"] = self.block
    return SEEN["block"].conv(x)


SEEN: dict[str, Any] = {}
by_name = operator.attrgetter("conv")
another_name = getattr


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
    "a call of an object with a block": lambda self, x: Given(self.block)(x),
    "a context": entered,
    "a loop over an object": lambda self, x: next(layer(x) for layer in Given(self.block)),
    "an element of an object": lambda self, x: Given(self.block)[0](x),
    "a sum with an object": lambda self, x: Given(self.block) + x,
    "any attribute of an object": lambda self, x: Given(self.block).anything(x),
    "what an object keeps": lambda self, x: Kept(self.block).first(x),
    "a pattern": matched,
    "a table that is written": remembered,
    "a dispatched function": lambda self, x: dispatched(self.block, x),
    "a getter": lambda self, x: by_name(self.block)(x),
    "getattr under another name": lambda self, x: another_name(self.block, "conv")(x),
    "one of two": lambda self, x: (self.block if x.ndim == 4 else self).conv(x),
    "one or the other": lambda self, x: (self.block or self).conv(x),
    "members by their class": lambda self, x: inspect.getmembers(self.block, lambda m: type(m) is nn.Conv2d)[0][1](x),
    "a copy": lambda self, x: copy.copy(self.block).conv(x),
    "a table of the class": lambda self, x: self.table["tap"](self.block, x),
    "a table of another class": lambda self, x: Tools.table["tap"](self.block, x),
    "a descriptor": lambda self, x: self.layer(x),
    "a decorator that is a class": lambda self, x: self.decorated(x),
    "a table of the file": lambda self, x: TABLE["tap"][0](self, x + 0),
}
TABLE: dict[str, Any] = {"tap": [lambda model, x: model.block.conv(x)]}


MEMBERS: dict[str, Any] = {
    "table": Tools.table,
    "layer": Descriptor(),
    "decorated": Decorator(lambda self, x: (self, x)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_others_get_stays(way: str) -> None:
    members = {name: MEMBERS[name] for name in MEMBERS if name in WAYS[way].__code__.co_names}
    model = trained(type("Tapping", (Taps,), {"tap": WAYS[way], "__module__": __name__, **members})(block=block()))
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
