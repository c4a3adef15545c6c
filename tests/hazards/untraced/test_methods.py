"""Hazard 36: methods beside the forward that compute without an input, or set by another what the forward reads."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import Block, layers
from tests.support.helpers import Model, assert_equal, folds, trained, values


def conv_of(block: Any) -> Any:
    return block.conv


def turned_on(model: Any) -> None:
    model.bare = True


class Flags:
    bare = False


class Child(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * 2

    @property
    def given(self) -> Any:
        return None

    @given.setter
    def given(self, value: Tensor) -> None:
        object.__setattr__(self, "gave", self.conv(value))


class Bare(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class OfBare(Bare):
    def of_base(self, x: Tensor) -> Any:
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Net(Model):
    """A block, which ``other`` uses in another way than the forward."""

    bare = False

    def __init__(self, **inner: nn.Module) -> None:
        super().__init__(**inner)
        self.register_buffer("anchor", torch.ones(1, 3, 4, 4))
        self.flags = Flags()

    def forward(self, x: Tensor) -> Any:
        return self.block.conv(x) if self.bare or self.flags.bare else self.block(x)


class WithoutAnInput(Net):
    def other(self, scale: float = 2.0) -> Any:
        return self.block.conv(self.anchor) * scale


class AsAProperty(Net):
    @property
    def other(self) -> Any:
        return self.block.conv(self.anchor)


class ByAHelper(Net):
    def other(self) -> Any:
        return conv_of(self.block)(self.anchor) + self.block.conv(self.anchor)


class Diffuses(Net):
    def forward_diffused(self, x: Tensor) -> Any:
        return self.block.conv(x)

    other = forward_diffused


class SetsByAMethod(Net):
    def _turn(self, *, on: bool) -> None:
        self.bare = on

    def other(self, x: Tensor) -> Any:
        self._turn(on=True)
        y = self(x)
        self._turn(on=False)
        return y


class SetsByAFunction(Net):
    def other(self, x: Tensor) -> Any:
        turned_on(self)
        y = self(x)
        self.bare = False
        return y


class SetsInAContext(Net):
    @contextlib.contextmanager
    def _turned(self) -> Any:
        self.bare = True
        yield
        self.bare = False

    def other(self, x: Tensor) -> Any:
        with self._turned():
            return self(x)


class OfAClassInside(Net):
    class Inner:
        def __init__(self, block: Any) -> None:
            self.block = block

        def run(self, x: Tensor) -> Any:
            return self.block.conv(x)

    def other(self, x: Tensor) -> Any:
        return self.Inner(self.block).run(x)


class Dispatched(Net):
    @functools.singledispatchmethod
    def other(self, x: Any) -> Any:
        raise TypeError(x)

    @other.register(Tensor)
    def _(self, x: Tensor) -> Any:
        return self.block.conv(x)


class OfTheBase(Net):
    def other(self, x: Tensor) -> Any:
        return self.block.of_base(x)


class SetsAnObject(Net):
    def other(self, x: Tensor) -> Any:
        self.flags.bare = True
        y = self(x)
        self.flags.bare = False
        return y


WAYS = [
    *(WithoutAnInput, AsAProperty, ByAHelper, Diffuses, SetsByAMethod, SetsByAFunction, SetsInAContext),
    *(OfAClassInside, Dispatched, OfTheBase, SetsAnObject),
]


def of_other(model: Any, x: Tensor) -> Any:
    if not callable(model.other):
        return model.other
    return model.other() if isinstance(model, (WithoutAnInput, ByAHelper)) else model.other(x)


@torch.no_grad()
@pytest.mark.parametrize("cls", WAYS)
def test_methods_give_what_they_gave(cls: type[Model]) -> None:
    model = trained(cls(block=OfBare(**layers())))
    fused, x = fx_fuse(model, structure="module"), values(2, 3, 6, 6)
    assert_equal(of_other(model, x), of_other(fused, x))
    assert_equal(model(x), fused(x))
    assert not folds(fused)


@torch.no_grad()
def test_a_property_that_is_set_gives_what_it_gave() -> None:
    model: Any = trained(Child(**layers()))
    fused: Any = fx_fuse(model, structure="module")
    model.given = fused.given = values(2, 3, 6, 6)
    assert_equal(model.gave, fused.gave)


@torch.no_grad()
@pytest.mark.parametrize("cls", [Dispatched, SetsAnObject])
def test_a_graph_has_no_method_that_would_give_something_else(cls: type[Model]) -> None:
    fused = fx_fuse(trained(cls(block=OfBare(**layers()))))
    assert folds(fused) == ["block.bn"]
    assert not hasattr(fused, "other")
