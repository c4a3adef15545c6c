"""Split, chunk and unbind, and the items of what they give: each item is a part of the whole."""

from __future__ import annotations

import operator
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from fxfuse.operators.axes import one_less
from fxfuse.operators.register import row
from fxfuse.operators.roles import View
from fxfuse.operators.slices import Cut, Piece, position, stretch

if TYPE_CHECKING:
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.registry import ShapeAndResult


class Parts(View):
    """An operation that gives a tuple of parts; the items of the tuple are what an affine passes."""

    def axis(self) -> int:
        """Return the axis, counted from the last."""
        return self.from_last(self.call.get("dim", 0))

    @abstractmethod
    def part(self, number: int) -> Cut:
        """Return the range of one item."""

    def number(self, name: str) -> int:
        """Return an argument that is a positive number."""
        value = self.call.get(name)
        self.require(isinstance(value, int) and value > 0)
        return int(value)

    def size(self) -> int:
        """Return the size of the whole along the axis."""
        return self.require_size(self.input, self.axis())

    def even(self, number: int, size: int) -> Cut:
        """Return the range of one of the items that are all of one size, but for the last."""
        count = -(-self.size() // size) if number < 0 else 0
        return stretch(self.axis(), (number + count) * size, size)


class Split(Parts):
    """Into parts of one size, the last may be smaller; or of the sizes in a list."""

    def part(self, number: int) -> Cut:
        """Return the range of one item."""
        name = self.call.operator.arguments[1]
        sizes = self.call.get(name)
        if not isinstance(sizes, (list, tuple)):
            return self.even(number, self.number(name))
        self.require(all(isinstance(n, int) for n in sizes))
        number %= len(sizes)
        return stretch(self.axis(), sum(sizes[:number]), sizes[number])


class Chunk(Parts):
    """Into at most so many parts, all but the last of one size."""

    def part(self, number: int) -> Cut:
        """Return the range of one item."""
        # torch's rule: ceil(size / chunks) each, which may give fewer parts than asked for
        return self.even(number, -(-self.size() // self.number("chunks")))


class Unbind(Parts):
    """Into all positions along an axis, which goes."""

    def part(self, number: int) -> Cut:
        """Return the range of one item."""
        return position(self.axis(), number)


class Item(Piece):
    """``x[...]``: an item of the parts of a tensor, or a tensor indexed by numbers and slices."""

    def matches(self) -> bool:
        """Whether it takes an item of known parts, or indexes a tensor; a tuple of anything else is not looked into."""
        whole = self.call.arguments.get("input")
        if not isinstance(whole, fx.Node):
            return False
        return self._parts() is not None or self.call.rank(whole) is not None

    def _parts(self) -> Parts | None:
        whole = self.call.input
        view = self.call.graph.view(whole) if self.call.graph.plays(whole, Parts) else None
        return view if isinstance(view, Parts) else None

    @property
    def input(self) -> fx.Node:
        """The value that is cut."""
        parts = self._parts()
        return self.call.input if parts is None else parts.input

    def cuts(self) -> list[Cut]:
        """Return the range of the item, or that of each axis that is indexed."""
        parts, index = self._parts(), self.call.get("index")
        if parts is not None:
            self.require(isinstance(index, int))
            return [parts.part(index)]
        listed = list(index) if isinstance(index, tuple) else [index]
        rank = self.require_axes(self.input)
        if Ellipsis in listed:
            at = listed.index(Ellipsis)
            listed[at : at + 1] = [slice(None)] * (rank - len(listed) + 1)
        self.require(len(listed) <= rank)
        cuts = [self._cut(axis - rank, item) for axis, item in enumerate(listed)]
        return [cut for cut in cuts if (cut.start, cut.stop) != (0, None) or cut.drops]

    def _cut(self, axis: int, item: Any) -> Cut:
        if isinstance(item, int) and not isinstance(item, bool):
            return position(axis, item)
        plain = isinstance(item, slice) and item.step in (None, 1)
        plain = plain and isinstance(item.start or 0, int) and isinstance(item.stop or 0, int)
        self.require(plain)
        return Cut(axis, item.start or 0, item.stop)


def with_items(graph: Graph, readers: list[fx.Node]) -> list[fx.Node]:
    """Return readers of a value, with the items of its parts in place of the call that gives them as a tuple."""
    found: list[fx.Node] = []
    for reader in readers:
        items = graph.users(reader) if graph.plays(reader, Parts) else []
        taken = bool(items) and all(item.target is operator.getitem for item in items)
        found += items if taken else [reader]
    return found


_aten = torch.ops.aten

_PARTS: ShapeAndResult = {"shape": "same rank", "result": "parts"}
# fmt: off
row("getitem", Item, "input index", operator.getitem)
row("split", Split, "tensor split_size_or_sections dim", torch.split, **_PARTS)
row("split", Split, "input split_size dim", "split", _aten.split.Tensor, _aten.split.sizes, **_PARTS)
row("split", Split, "input split_sizes dim",
    "split_with_sizes", torch.split_with_sizes, _aten.split_with_sizes.default, **_PARTS)
row("chunk", Chunk, "input chunks dim", "chunk", torch.chunk, _aten.chunk.default, **_PARTS)
row("unbind", Unbind, "input dim", "unbind", torch.unbind, _aten.unbind.int, rank=one_less, result="parts")
