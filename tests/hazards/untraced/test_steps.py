"""Hazard 35: steps of untraced code that look like harmless ones, and take a layer out of a block."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hazards.blocks import assert_stays, batch_of, layers
from tests.support.helpers import Model, trained


class Taps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * batch_of(x) + self.tap(x)


def conv_of(block: Any, *others: Any) -> Any:  # noqa: ARG001 - they stand behind it
    return block.conv


def of_model(model: Any, x: Tensor) -> Any:
    return conv_of(model.block)(x)


class WithAVariableOfAKnownName(Taps):
    def tap(self, x: Tensor) -> Any:
        stride = 2
        return conv_of(self.block, stride)(x)


class WithATextOfAKnownName(Taps):
    def tap(self, x: Tensor) -> Any:
        return conv_of(self.block, "stride")(x)


class WeightWithAVariable(Taps):
    def tap(self, x: Tensor) -> Any:
        dim = 0
        return x * torch.sum(self.block.conv.weight, dim).mean()


class ParameterWithAVariable(Taps):
    def tap(self, x: Tensor) -> Any:
        dtype = x.dtype
        return torch.mul(next(self.block.parameters()).mean(dtype=dtype), x)


class ParametersBehindALambda(Taps):
    def tap(self, x: Tensor) -> Any:
        same: Any = lambda value: value  # noqa: E731
        for parameter in self.block.parameters():
            return same(x) * parameter.mean()
        return x


class ParametersOfWhichItAsks(Taps):
    def tap(self, x: Tensor) -> Any:
        return x * next(iter(p for p in self.block.parameters() if p.requires_grad)).mean()


class ByAKeyword(Taps):
    def tap(self, x: Tensor) -> Any:
        return by_a_keyword(model=self, x=x)


def by_a_keyword(x: Tensor, model: Any) -> Any:
    return of_model(model, x.clone())


class ByADefault(Taps):
    def tap(self, x: Tensor) -> Any:
        def inner(x: Tensor, model: Any = self) -> Any:
            return of_model(model, x)

        return inner(x)


class InTheBodyOfAClass(Taps):
    def tap(self, x: Tensor) -> Any:
        class Holder:
            model = self

        return in_a_holder(Holder, x)


def in_a_holder(holder: Any, x: Tensor) -> Any:
    return of_model(holder.model, x)


class Dispatched(Taps):
    @functools.singledispatchmethod
    def tap(self, x: Any) -> Any:
        raise TypeError(x)

    @tap.register(Tensor)
    def _(self, x: Tensor) -> Any:
        return self.block.conv(x)


class Cached(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.layer()(x)

    @functools.lru_cache(maxsize=1)  # noqa: B019 - as is done
    def layer(self) -> Any:
        return self.block.conv


class Mapped(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.mapped(x[None])[0]


class BySuperOfTheChild(Taps):
    def tap(self, x: Tensor) -> Any:
        return self.block.of_base(x)


class ByItsBoundForward(Taps):
    def tap(self, x: Tensor) -> Any:
        bound: Any = self.block.forward
        return bound.__self__.conv(x)


class ByItsOwnFrame(Taps):
    def tap(self, x: Tensor) -> Any:
        block = self.block
        block(x)
        return inspect.currentframe().f_locals["block"].conv(x)  # type: ignore[union-attr]


def id(block: Any) -> Any:  # noqa: A001 - this is the point
    return block.conv


class ByAFunctionOfABuiltinsName(Taps):
    def tap(self, x: Tensor) -> Any:
        return id(self.block)(x)


class Bare(Model):
    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


class Child(Bare):
    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x))

    def of_base(self, x: Tensor) -> Any:
        return super().forward(x)


READ = [
    *(WithAVariableOfAKnownName, WithATextOfAKnownName, WeightWithAVariable, ParameterWithAVariable),
    *(ParametersBehindALambda, ParametersOfWhichItAsks, ByAKeyword, ByADefault, InTheBodyOfAClass, Dispatched, Cached),
    *(Mapped, BySuperOfTheChild, ByItsBoundForward, ByItsOwnFrame, ByAFunctionOfABuiltinsName),
]


@pytest.mark.parametrize("cls", READ)
def test_no_step_of_code_is_taken_for_another(cls: type[Model]) -> None:
    model: Any = cls(block=Child(**layers()))
    if cls is Mapped:
        model.mapped = torch.vmap(model.block.conv)
    assert_stays(trained(model), ["block.bn"])
