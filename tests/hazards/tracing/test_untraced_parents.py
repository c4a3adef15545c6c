"""Hazard 35: untraced code calls its children as a whole, in whatever way Python can say so: they fold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from fxfuse import Reason
from tests.hazards.blocks import Block, assert_decided, assert_stays, batch_of, block, sequence
from tests.support.helpers import Model, folds, trained, values

# -- loops and elements


class Loops(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for child in self.blocks:
            taps.append(child(taps[-1]))
        return taps


class Enumerates(Model):
    def forward(self, x: Tensor) -> Tensor:
        for number, child in enumerate(reversed(self.blocks)):
            x = child(x) + number * batch_of(x)
        return x


class Counts(Model):
    def forward(self, x: Tensor) -> Tensor:
        for number in range(len(self.blocks)):
            x = self.blocks[number](x) * batch_of(x)
        return x


class Indexes(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.blocks[0](x) * batch_of(x)
        return low, self.blocks[-1](low)


class Slices(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x) * batch_of(x)
        for child in self.blocks[1:]:
            x = child(x)
        return x


class Zips(Model):
    def forward(self, x: Tensor) -> Tensor:
        sizes = [batch_of(x), 2]
        return torch.cat([child(x) * size for size, child in zip(sizes, self.blocks, strict=True)])


class ListsChildren(Model):
    def forward(self, x: Tensor) -> Tensor:
        for _, child in self.blocks.named_children():
            x = child(x) * batch_of(x)
        return x


class OpensElements(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for child in self.blocks:
            for layer in child.children() if isinstance(child, Block) else child:
                taps.append(layer(taps[-1]))
        return taps


class HandsElementsOn(Model):
    def forward(self, x: Tensor) -> Tensor:
        for child in self.blocks:
            x = last_of(child(x) * batch_of(x), child)
        return x


def last_of(x: Tensor, layers: Any) -> Tensor:
    last: Tensor = layers[-1](x) if isinstance(layers, nn.Sequential) else x
    return last


class UsesTheLastElement(Model):
    def forward(self, x: Tensor) -> Tensor:
        for child in self.blocks:
            x = child(x) * batch_of(x)
        last: Tensor = child[1](x)
        return last


class IndexesElements(Model):
    def forward(self, x: Tensor) -> Tensor:
        low = self.blocks[0](x) * batch_of(x)
        last: Tensor = self.blocks[1][1](low) + self.blocks[-1](low)
        return last


class LoopsOverPairs(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        sizes, found = [batch_of(x), 2], []
        for size, child in zip(sizes, self.blocks, strict=True):
            found.append(child(x) * size)
        return found


CALLING = [Loops, Enumerates, Counts, Indexes, LoopsOverPairs]  # which do nothing with the elements but call them


@pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
@pytest.mark.parametrize("cls", CALLING)
def test_children_that_are_only_called_fold(cls: type[Model], container: Any) -> None:
    children = [block(), sequence()]
    model = trained(cls(blocks=container(*children) if container is nn.Sequential else container(children)))
    fused = assert_stays(model, [])
    assert folds(fused) == ["blocks.0.bn", "blocks.1.1"]


@pytest.mark.parametrize("cls", [OpensElements, HandsElementsOn, UsesTheLastElement, IndexesElements])
def test_children_that_may_be_opened_stay(cls: type[Model]) -> None:
    model = trained(cls(blocks=nn.ModuleList([block(), sequence()])))
    fused = assert_stays(model, ["blocks.1.1"], because={Reason.OPAQUE})
    assert "blocks.1.1" not in folds(fused)


@pytest.mark.parametrize(
    ("cls", "example"),
    [
        (Slices, None),
        (Zips, None),
        *((cls, (2, 3, 6, 6)) for cls in (*CALLING, Slices, Zips)),
    ],
)
@pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
def test_children_of_a_container_fold(cls: type[Model], container: Any, example: tuple[int, ...] | None) -> None:
    """Code that opens containers may open those in them too: a run shows that it does not."""
    children = [block(), sequence()]
    model = trained(cls(blocks=container(*children) if container is nn.Sequential else container(children)))
    fused: Any = assert_sequence_needs_a_run(model, "blocks.0.bn", "blocks.1.1", example)
    assert (type(fused), type(fused.blocks), type(fused.blocks[0])) == (cls, container, Block)
    assert len(fused.blocks) == 2


def assert_sequence_needs_a_run(model: nn.Module, always: str, path: str, example: tuple[int, ...] | None) -> nn.Module:
    """A block folds in any case; a sequence that untraced code might open folds with example inputs."""
    if example is None:
        fused = assert_stays(model, [path], because={Reason.OPAQUE})
        assert folds(fused) == [always]
        return fused
    return assert_decided(model, folded=[always, path], example_inputs=values(*example))


def test_children_that_are_listed_fold_on_a_run() -> None:
    model = trained(ListsChildren(blocks=nn.ModuleList([block(), sequence()])))
    assert_stays(model, ["blocks.0.bn", "blocks.1.1"], because={Reason.OPAQUE})
    assert_decided(model, folded=["blocks.0.bn", "blocks.1.1"], example_inputs=values(2, 3, 6, 6))


class Keys(Model):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {key: self.blocks[key](x) * batch_of(x) for key in self.blocks}


class Items(Model):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {key: child(x) * batch_of(x) for key, child in self.blocks.items()}


class Values(Model):
    def forward(self, x: Tensor) -> Tensor:
        return sum((child(x) for child in self.blocks.values()), x * batch_of(x))


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("cls", [Keys, Items, Values])
def test_children_of_a_dictionary_fold(cls: type[Model], example: tuple[int, ...] | None) -> None:
    model = trained(cls(blocks=nn.ModuleDict({"low": block(), "high": sequence()})))
    fused: Any = assert_sequence_needs_a_run(model, "blocks.low.bn", "blocks.high.1", example)
    assert list(fused.blocks) == ["low", "high"]


# -- names


class Alias(Model):
    def forward(self, x: Tensor) -> Tensor:
        first = self.one
        return (second := self.two)(first(x)) * batch_of(x) + second(x)


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
@pytest.mark.parametrize("cls", [Steps, Inherits, NestedFunction, Checkpoints])
def test_children_that_are_called_fold(cls: type[Model], example: tuple[int, ...] | None) -> None:
    inputs = None if example is None else values(*example)
    assert_decided(trained(cls(one=block(), two=sequence())), folded=["one.bn", "two.1"], example_inputs=inputs)


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("cls", [Alias, Unpacked, Chosen, LoopOverTuple])
def test_children_under_other_names_fold(cls: type[Model], example: tuple[int, ...] | None) -> None:
    assert_sequence_needs_a_run(trained(cls(one=block(), two=sequence())), "one.bn", "two.1", example)


@pytest.mark.parametrize("cls", [ByName, AsksDtype])
def test_children_that_may_be_opened_fold_on_a_run(cls: type[Model]) -> None:
    model = trained(cls(one=block(), two=sequence()))
    assert_stays(model, ["two.1"])
    assert_decided(model, folded=["one.bn", "two.1"], example_inputs=values(2, 3, 6, 6))
