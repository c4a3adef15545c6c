"""Hazard 35: untraced code takes a value out of the middle of a block: the block stays."""

from __future__ import annotations

import copy
import functools
import operator
from typing import TYPE_CHECKING, Any

import pytest
from torch import Tensor, nn

from tests.hazards.blocks import assert_stays, batch_of, sequence
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable


class Taps(Model):
    """Calls its block as a whole, and besides a layer of it alone, which ``tap`` finds."""

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * batch_of(x) + self.tap(x)


class TextualGetattr(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return getattr(self, "block")[0](x)  # noqa: B009 - this is the point


class ComputedGetattr(Taps):
    def tap(self, x: Tensor) -> Tensor:
        found = getattr(self, f"{'block'}")
        return found[0](x)


class GetSubmodule(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return self.get_submodule("block.0")(x)


class NamedModules(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return dict(self.named_modules())["block.0"](x)


class AllModules(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return next(module for module in self.modules() if isinstance(module, nn.Conv2d))(x)


class PrivateDictionary(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return self._modules["block"][0](x)  # type: ignore[index] # it is there


class AttributeGetter(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return operator.attrgetter("block")(self)[0](x)


class SliceInLoop(Taps):
    def tap(self, x: Tensor) -> Tensor:
        for layer in self.block[:1]:
            x = layer(x)
        return x


class SlicedSequence(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return self.block[:-1](x)


class Rebuilt(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return nn.Sequential(*list(self.block)[:1])(x)


class Iterator(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return next(iter(self.block))(x)


class TupleOfNames(Taps):
    def tap(self, x: Tensor) -> Tensor:
        found, _ = self.block, self.training
        return found[0](x)


class ListOfBlocks(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return [self.block][0][0](x)


class Conditional(Taps):
    def tap(self, x: Tensor) -> Tensor:
        found = self.block if x.shape[0] > 4 else self.other
        return found[0](x)


class Alternative(Taps):
    def tap(self, x: Tensor) -> Tensor:
        found = self.block or self.other
        return found[0](x)


class UnboundMethod(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return first_of(self, x)


class DefaultArgument(Taps):
    def tap(self, x: Tensor) -> Tensor:
        def first(value: Tensor, found: Any = self.block) -> Tensor:
            return found[0](value)

        return first(x)


class OtherSelf(Taps):
    def tap(self, x: Tensor) -> Tensor:
        me = self
        return me.block[0](x)


class LoopTaps(Taps):
    def tap(self, x: Tensor) -> Tensor:
        values = []
        for layer in self.block:
            x = layer(x)
            values.append(x)
        return values[0] + values[1]


class ReadsParameters(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return x.mean() * sum(parameter.sum() for parameter in self.block.parameters())


class ReadsStateDict(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return x.mean() * self.block.state_dict()["0.weight"].sum()


class Copies(Taps):
    def tap(self, x: Tensor) -> Tensor:
        return copy.copy(self.block)[0](x)


def first_of(model: Any, x: Tensor) -> Tensor:
    return model.block[0](x)


def with_tap(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def wrapped(self: Any, x: Tensor) -> Tensor:
        return forward(self, x) + self.block[0](x)

    return wrapped


class Decorated(Model):
    @with_tap
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * batch_of(x)


HIDDEN = [
    TextualGetattr, ComputedGetattr, GetSubmodule, NamedModules, AllModules, PrivateDictionary, AttributeGetter,
    SliceInLoop, SlicedSequence, Rebuilt, Iterator, TupleOfNames, ListOfBlocks, Conditional, Alternative,
    UnboundMethod, DefaultArgument, OtherSelf, LoopTaps, ReadsParameters, ReadsStateDict, Copies, Decorated,
]  # fmt: skip


@pytest.mark.parametrize("cls", HIDDEN)
def test_a_layer_of_a_sequence_that_is_called_alone_keeps_the_norm(cls: type[Model]) -> None:
    assert_stays(trained(cls(block=sequence(), other=sequence())), ["block.1"])
