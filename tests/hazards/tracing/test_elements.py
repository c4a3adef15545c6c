"""Hazard 35: untraced code goes through a container, and only calls its elements, or may open them too."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason
from tests.hazards.blocks import (
    Block,
    assert_decided,
    assert_sequence_needs_a_run,
    assert_stays,
    batch_of,
    block,
    sequence,
)
from tests.support.helpers import Model, folds, trained, values


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


CALLING = [
    Loops,
    Enumerates,
    Counts,
    Indexes,
    LoopsOverPairs,
    Zips,
]  # which only call them


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
    [(cls, (2, 3, 6, 6)) for cls in CALLING],
)
@pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
def test_children_of_a_container_fold(cls: type[Model], container: Any, example: tuple[int, ...] | None) -> None:
    """Code that opens containers may open those in them too: a run shows that it does not."""
    children = [block(), sequence()]
    model = trained(cls(blocks=container(*children) if container is nn.Sequential else container(children)))
    fused: Any = assert_sequence_needs_a_run(model, "blocks.0.bn", "blocks.1.1", example)
    assert isinstance(fused, cls)
    assert (type(fused.blocks), type(fused.blocks[0])) == (container, Block)
    assert len(fused.blocks) == 2


def test_children_that_are_listed_fold_on_a_run() -> None:
    model = trained(ListsChildren(blocks=nn.ModuleList([block(), sequence()])))
    assert_stays(model, ["blocks.0.bn", "blocks.1.1"], because={Reason.OPAQUE})
    assert_decided(model, folded=["blocks.0.bn", "blocks.1.1"], example_inputs=values(2, 3, 6, 6))


# -- what is not known to leave elements as they are


def flattened(blocks: Any) -> list[Any]:
    return [layer for inner in blocks for layer in (inner.children() if isinstance(inner, Block) else inner)]


class Flattens(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for layer in flattened(self.blocks):
            taps.append(layer(taps[-1]))
        return taps


class Chains(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for layer in itertools.chain(*self.blocks):
            taps.append(layer(taps[-1]))
        return taps


class OpensByAFunction(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for conv in map(operator.itemgetter(0), self.blocks):
            taps.append(conv(taps[-1]))
        return taps


class NamesOfItsOwn(Model):
    order = ("blocks",)

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for name in self.order:
            taps += [layer[0](taps[-1]) for layer in getattr(self, name)]
        return taps


class Bag(Model):
    def __iter__(self) -> Any:
        return iter(self.inner)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class LoopsOverABag(Model):
    def forward(self, x: Tensor) -> list[Tensor]:
        taps = [x * batch_of(x)]
        for layer in self.blocks:
            taps.append(layer(taps[-1]))
        return [*taps, self.blocks(x)]


class KeepsAList(Model):
    taps: list[nn.Module]

    def forward(self, x: Tensor) -> tuple[Any, Any]:
        return self.taps[0](x) * batch_of(x), self.blocks[0](x)


def two() -> nn.ModuleList:
    return nn.ModuleList([sequence(), sequence()])


def keeping() -> Model:
    model = KeepsAList(blocks=two())
    model.taps = [model.blocks[0][0]]
    return model


@pytest.mark.parametrize(
    "model",
    [
        *(cls(blocks=two()) for cls in (Flattens, Chains, OpensByAFunction, NamesOfItsOwn)),
        LoopsOverABag(blocks=Bag(inner=sequence())),
        keeping(),
    ],
)
def test_elements_that_code_takes_apart_stay(model: nn.Module) -> None:
    assert {"blocks.0.1", "blocks.inner.1"}.isdisjoint(folds(assert_stays(trained(model), [])))
