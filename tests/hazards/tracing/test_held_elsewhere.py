"""Hazard 36: untraced code calls a layer of a block by itself, through something that holds the block."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import pytest

from tests.hazards.blocks import Block, assert_decided, assert_stays, batch_of, block, layers
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


class Indexable(Block):
    def __getitem__(self, index: int) -> nn.Module:
        return list(self.children())[index]


class Held(Model):
    """Calls a block that it holds as ``block`` and, not registered, as ``held``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * batch_of(x) + self.tap(x)


class InList(Held):
    def tap(self, x: Tensor) -> Tensor:
        return self.held[0].conv(x)


class InPairs(Held):
    def tap(self, x: Tensor) -> Tensor:
        for child, _ in self.held:
            x = child.conv(x)
        return x


class InObject(Held):
    def tap(self, x: Tensor) -> Tensor:
        return self.held.child.conv(x)


class InHelper(Held):
    def tap(self, x: Tensor) -> Tensor:
        return conv_of(self.block, x)


class InPartial(Held):
    def tap(self, x: Tensor) -> Tensor:
        return functools.partial(conv_of, self.block)(x)


class InElement(Held):
    def tap(self, x: Tensor) -> Tensor:
        return self.block[0](x)


class InProperty(Held):
    @property
    def stem(self) -> Any:
        return self.block

    def tap(self, x: Tensor) -> Tensor:
        return self.stem.conv(x)


def conv_of(child: Any, x: Tensor) -> Tensor:
    return child.conv(x)


HOLDERS: list[tuple[type[Model], Callable[[nn.Module], Any]]] = [
    (InList, lambda child: [child]),
    (InPairs, lambda child: [(child, 1)]),
    (InHelper, lambda _: None),
    (InPartial, lambda _: None),
    (InElement, lambda _: None),
    (InProperty, lambda _: None),
    (InObject, lambda child: types.SimpleNamespace(child=child)),
]


@pytest.mark.parametrize(("cls", "hold"), HOLDERS)
def test_a_layer_of_a_block_that_is_called_alone_keeps_the_norm(
    cls: type[Model], hold: Callable[[nn.Module], Any]
) -> None:
    child = Indexable(**layers())
    assert_stays(trained(cls(block=child, held=hold(child))), ["block.bn"])


class Child(Model):
    def forward(self, x: Tensor) -> Tensor:
        return x * batch_of(x) + self.parent[0].block.conv(x)


class Parent(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.child(self.block(x))


def test_a_reference_back_to_the_parent_keeps_the_norm() -> None:
    model = Parent(block=block(), child=Child())
    model.child.parent = [model]
    assert_stays(trained(model), ["block.bn"])


# -- reading about attributes runs none of the user's code


class Properties(Block):
    ready = False

    @functools.cached_property
    def table(self) -> list[int]:
        return [2]

    @property
    def cache(self) -> int:
        raise RuntimeError("not ready yet")


class ReadsCachedProperty(Held):
    def tap(self, x: Tensor) -> Tensor:
        return x * self.block.table[0]


class ReadsRaisingProperty(Held):
    def tap(self, x: Tensor) -> Tensor:
        return x * self.block.cache if self.block.ready else x


@pytest.mark.parametrize("cls", [ReadsCachedProperty, ReadsRaisingProperty])
def test_properties_of_children_are_not_run(cls: type[Model]) -> None:
    assert_decided(trained(cls(block=Properties(**layers()))), folded=["block.bn"])
