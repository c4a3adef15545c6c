"""Hazard 35: untraced code calls its children as a whole, in whatever way Python can say so: they fold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from tests.hazards.blocks import (
    assert_decided,
    assert_stays,
    batch_of,
    block,
    sequence,
)
from tests.support.helpers import Model, trained, values


class Keys(Model):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {key: self.blocks[key](x) * batch_of(x) for key in self.blocks}


class Items(Model):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {key: child(x) * batch_of(x) for key, child in self.blocks.items()}


class Values(Model):
    def forward(self, x: Tensor) -> Tensor:
        return sum((child(x) for child in self.blocks.values()), x * batch_of(x))


@pytest.mark.parametrize("cls", [Items, Values])
def test_children_of_a_dictionary_that_are_only_called_fold(cls: type[Model]) -> None:
    model = trained(cls(blocks=nn.ModuleDict({"low": block(), "high": sequence()})))
    assert_decided(model, folded=["blocks.low.bn", "blocks.high.1"])


@pytest.mark.parametrize("cls", [Keys, Items, Values])
def test_children_of_a_dictionary_fold_on_a_run(cls: type[Model]) -> None:
    model = trained(cls(blocks=nn.ModuleDict({"low": block(), "high": sequence()})))
    if cls is Keys:
        assert_stays(model, ["blocks.high.1"])
    fused: Any = assert_decided(model, folded=["blocks.low.bn", "blocks.high.1"], example_inputs=values(2, 3, 6, 6))
    assert list(fused.blocks) == ["low", "high"]


# -- names


class Alias(Model):
    def forward(self, x: Tensor) -> Tensor:
        first, batch = self.one, batch_of(x)
        return (second := self.two)(first(x)) * batch + second(x)


class Unpacked(Model):
    def forward(self, x: Tensor) -> Tensor:
        first, second = self.one, self.two
        return second(first(x)) * batch_of(x)


class Chosen(Model):
    def forward(self, x: Tensor) -> Tensor:
        child = self.one if batch_of(x) > 4 else self.two
        return child(x)


class LoopOverTuple(Model):
    def forward(self, x: Tensor) -> Tensor:
        for child in (self.one, self.two):
            x = child(x) * batch_of(x)
        return x


class ByName(Model):
    names = ("one", "two")

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, f"{name}")(x) * batch_of(x)
        return x


class NestedFunction(Model):
    def forward(self, x: Tensor) -> Tensor:
        def scaled(value: Tensor) -> Tensor:
            return self.one(value) * batch_of(value)

        return self.two(scaled(x))


class Checkpoints(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.utils.checkpoint.checkpoint(self.one, x, use_reentrant=False)
        return self.two(y) * batch_of(x)


class Steps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self._second(self._first(x)) * batch_of(x)

    def _first(self, x: Tensor) -> Tensor:
        return self.one(x)

    def _second(self, x: Tensor) -> Tensor:
        return self.two(x)


class Inherits(Steps):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class AsksDtype(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.parameters()).dtype) * batch_of(x)
        return self.two(self.one(x.to(self.two[0].weight.dtype)))


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("cls", [Steps, Inherits, NestedFunction, Chosen, Checkpoints])
def test_children_that_are_called_fold(cls: type[Model], example: tuple[int, ...] | None) -> None:
    inputs = None if example is None else values(*example)
    assert_decided(trained(cls(one=block(), two=sequence())), folded=["one.bn", "two.1"], example_inputs=inputs)


@pytest.mark.parametrize("cls", [Alias, Unpacked, LoopOverTuple])
def test_children_that_more_is_done_with_fold_on_a_run(cls: type[Model]) -> None:
    model = trained(cls(one=block(), two=sequence()))
    assert_stays(model, ["one.bn"])
    assert_decided(model, folded=["one.bn", "two.1"], example_inputs=values(2, 3, 6, 6))


@pytest.mark.parametrize("cls", [ByName, AsksDtype])
def test_children_that_may_be_opened_fold_on_a_run(cls: type[Model]) -> None:
    model = trained(cls(one=block(), two=sequence()))
    assert_stays(model, ["two.1"])
    assert_decided(model, folded=["one.bn", "two.1"], example_inputs=values(2, 3, 6, 6))


class LoopsInTurn(Model):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.down:
            x = layer(x)
        for layer in self.up:
            x = layer(x) * batch_of(x)
        return x


class LoopsAndHandsOn(LoopsInTurn):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.down:
            x = layer(x)
        for layer in self.up:
            x = first_of(layer)(x) * batch_of(x)
        return x


def first_of(layers: Any) -> Any:
    return layers[0]


def test_loops_in_turn_may_have_one_variable() -> None:
    parts = {name: nn.ModuleList([sequence()]) for name in ("down", "up")}
    assert_decided(trained(LoopsInTurn(**parts)), folded=["down.0.1", "up.0.1"])
    parts = {name: nn.ModuleList([sequence()]) for name in ("down", "up")}
    assert_stays(trained(LoopsAndHandsOn(**parts)), ["down.0.1", "up.0.1"])
