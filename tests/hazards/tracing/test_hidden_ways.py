"""Hazards 35, 36: untraced code calls a convolution without its norm, in ways that are hard to see."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, batch_of, layers, sequence
from tests.support.helpers import Model, folds, trained, values

INPUTS = [values(*shape) for shape in ((2, 3, 6, 6), (6, 3, 6, 6))]
LARGE = 4  # batches of more take the other way


class Base(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block[0](x)


class Taps(Base):
    """Calls a block, which folds; and for large batches its convolution alone, in a method ``tap``."""

    def forward(self, x: Tensor) -> Any:
        return self.tap(x) if batch_of(x) > LARGE else self.block(x)


class ByNameOfTheClass(Taps):
    def tap(self, x: Tensor) -> Any:
        return Base.forward(self, x)


class BehindTheClass(Taps):
    def tap(self, x: Tensor) -> Any:
        return super(Taps, self).forward(x)


class BySuperAsAValue(Taps):
    def tap(self, x: Tensor) -> Any:
        above: Any = super(Taps, self)
        return above.forward(x)


class ByAList(Taps):
    def tap(self, x: Tensor) -> Any:
        inner = list(self.block)
        return inner[0](x)


class ByADisplay(Taps):
    def tap(self, x: Tensor) -> Any:
        inner = [self.block[0], self.block[1]]
        return inner[0](x)


class ByAnIterator(Taps):
    def tap(self, x: Tensor) -> Any:
        inner = iter(self.block)
        return next(inner)(x)


class ByASlice(Taps):
    def tap(self, x: Tensor) -> Any:
        head = self.block[:1]
        return head(x)


def tap(model: Any, x: Tensor) -> Any:
    return model.block[0](x)


class ByAFunctionOfTheSameName(Taps):
    def tap(self, x: Tensor) -> Any:
        return tap(self, x)


def of_the_base(model: Any, x: Tensor) -> Any:
    return Base.forward(model, x)


def behind_the_class(model: Any, x: Tensor) -> Any:
    return super(Taps, model).forward(x)


class ByAFunctionThatLooksBehindTheClass(Taps):
    def tap(self, x: Tensor) -> Any:
        return behind_the_class(self, x)


class ByAFunctionThatNamesTheClass(Taps):
    def tap(self, x: Tensor) -> Any:
        return of_the_base(self, x)


class ByAStaticMethod(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.run(self, x)

    @staticmethod
    def run(model: Any, x: Tensor) -> Any:
        return model.block[0](x)


class ByACachedProperty(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.first(x)

    @functools.cached_property
    def first(self) -> Any:
        return self.block[0]


class ByEval(Taps):
    def tap(self, x: Tensor) -> Any:  # noqa: ARG002 - the text uses it
        return eval("self.block[0](x)")  # noqa: S307 - this is the point


class ByTheDictionary(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.__dict__["_modules"]["block"][0](x)


KEPT: list[Any] = []


class ByAGlobal(Taps):
    def tap(self, x: Tensor) -> Any:
        global KEPT  # noqa: PLW0603 - this is the point
        KEPT = self.block
        return KEPT[0](x)


def checkpoint(block: Any, x: Tensor) -> Any:
    return block[0](x)


class ByAFunctionWithAKnownName(Taps):
    def tap(self, x: Tensor) -> Any:
        return checkpoint(self.block, x)


class ByAMethodOfTheInstance(Taps):
    def __init__(self, **inner: Any) -> None:
        super().__init__(**inner)
        self.first = types.MethodType(tap, self)

    def tap(self, x: Tensor) -> Any:
        return self.first(x)


class ByAPrivateName(Taps):
    def __init__(self, **inner: Any) -> None:
        super().__init__(**inner)
        self.__hidden = self.block

    def tap(self, x: Tensor) -> Any:
        return self.__hidden[0](x)


class InItsOwnCall(Taps):
    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x) + (self.block[0](x) if batch_of(x) > LARGE else 0)

    def tap(self, x: Tensor) -> Any:
        return self.block(x)


class Reversed(nn.Sequential):
    def __iter__(self) -> Any:
        return iter([self._modules["2"][0]])  # type: ignore[index] # a block


class ByALoopOfItsOwn(Taps):
    def __init__(self, block: nn.Module) -> None:
        super().__init__(stage=Reversed(nn.Identity(), nn.Identity(), block))

    def forward(self, x: Tensor) -> Any:
        if batch_of(x) <= LARGE:
            return self.stage[2](x)
        for layer in self.stage:
            x = layer(x)
        return x


WAYS = [
    *(ByNameOfTheClass, BehindTheClass, BySuperAsAValue, ByAList, ByADisplay, ByAnIterator, ByASlice),
    *(
        ByAFunctionOfTheSameName,
        ByAFunctionThatNamesTheClass,
        ByAStaticMethod,
        ByACachedProperty,
        ByEval,
        ByTheDictionary,
        ByAGlobal,
    ),
    *(ByAFunctionWithAKnownName, ByAMethodOfTheInstance, ByAPrivateName, InItsOwnCall, ByALoopOfItsOwn),
]


class Whole(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.block(x)


def test_a_block_that_is_called_as_a_whole_folds() -> None:
    assert folds(fx_fuse(trained(Whole(block=sequence())))) == ["block.1"]


@pytest.mark.parametrize("cls", WAYS)
def test_no_way_is_overlooked(cls: type[Model]) -> None:
    model = trained(cls(block=sequence()))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert not folds(fused)


# -- what a parent makes of a child before it calls it


class Optional(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y) if self.normalises else y


class SetsAFlag(Model):
    def forward(self, x: Tensor) -> Any:
        self.child.normalises = batch_of(x) <= LARGE
        return self.child(x)


class SetsAMode(Model):
    def forward(self, x: Tensor) -> Any:
        self.child.train(batch_of(x) > LARGE)
        return self.child(x)


@pytest.mark.parametrize("cls", [SetsAFlag, SetsAMode])
def test_a_child_that_is_switched_stays(cls: type[Model]) -> None:
    child: Any = Optional(**layers())
    child.normalises = True
    model = trained(cls(child=child))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS[:1])
    assert not folds(fused)
