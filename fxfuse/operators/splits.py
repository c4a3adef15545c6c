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
from fxfuse.operators.slices import Cut, Piece, position, sliced, stretch

if TYPE_CHECKING:
    from fxfuse.graph.graph import Graph


class Parts(View):
    """An operation that gives a tuple of parts; the items of the tuple are what an affine passes."""

    @abstractmethod
    def part(self, number: int, axis: int) -> Cut:
        """Return the range of one item along an axis that is counted from the last."""

    def number(self, name: str) -> int:
        """Return an argument that is a positive number."""
        value = self.call.get(name)
        self.require(isinstance(value, int) and value > 0)
        return int(value)

    def size(self, axis: int) -> int | None:
        """Return the size of the whole along the axis, if it is known."""
        return self.call.graph.sizes.along(self.input, axis)

    def even(self, number: int, size: int, axis: int) -> Cut:
        """Return the range of one of the items that are all of one size, but for the last."""
        whole = self.size(axis)
        if whole is None:
            return Cut(axis, None)  # the last item may be shorter
        count = -(-whole // size) if number < 0 else 0
        return stretch(axis, (number + count) * size, size)


class Split(Parts):
    """Into parts of one size, the last may be smaller; or of the sizes in a list."""

    def part(self, number: int, axis: int) -> Cut:
        """Return the range of one item."""
        name = self.call.operator.arguments[1]
        sizes = self.call.get(name)
        if not isinstance(sizes, (list, tuple)):
            return self.even(number, self.number(name), axis) if isinstance(sizes, int) else Cut(axis, None)
        if not all(isinstance(n, int) for n in sizes):
            return Cut(axis, None)
        number %= len(sizes)
        return stretch(axis, sum(sizes[:number]), sizes[number])


class Chunk(Parts):
    """Into at most so many parts, all but the last of one size."""

    def part(self, number: int, axis: int) -> Cut:
        """Return the range of one item."""
        whole, chunks = self.size(axis), self.call.get("chunks")
        if whole is None or not isinstance(chunks, int):
            return Cut(axis, None)
        # torch's rule: ceil(size / chunks) each, which may give fewer parts than asked for
        return self.even(number, -(-whole // self.number("chunks")), axis)


class Unbind(Parts):
    """Into all positions along an axis, which goes."""

    def part(self, number: int, axis: int) -> Cut:
        """Return the range of one item."""
        return position(axis, number)


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

    @property
    def keeps_rank(self) -> bool:
        """Whether it is an item of parts that keep all axes, or an index of slices alone."""
        parts = self._parts()
        if parts is not None:
            return not isinstance(parts, Unbind)
        return all(isinstance(item, slice) or item is Ellipsis for item in self._listed())

    def _listed(self) -> list[Any]:
        index = self.call.get("index")
        return list(index) if isinstance(index, tuple) else [index]

    def cuts(self, axes: int | None = None) -> list[Cut]:
        """Return the range of the item, or that of each axis that is indexed."""
        parts, index = self._parts(), self.call.get("index")
        if parts is not None:
            self.require(isinstance(index, int))
            return [parts.part(index, self.counted(parts.call.get("dim", 0), axes))]
        listed = self._listed()
        dots = [at for at, item in enumerate(listed) if item is Ellipsis]
        self.require(len(dots) <= 1)
        first, last = (listed, []) if not dots else (listed[: dots[0]], listed[dots[0] + 1 :])
        found = [self._cut(axis, item, axes) for axis, item in enumerate(first)]
        found += [self._cut(axis - len(last), item, axes) for axis, item in enumerate(last)]
        return [cut for cuts in found for cut in cuts]

    def _cut(self, axis: int, item: Any, axes: int | None) -> list[Cut]:
        if isinstance(item, slice):
            return sliced(item, lambda: self.counted(axis, axes))
        self.require(isinstance(item, int) and not isinstance(item, bool))
        return [position(self.counted(axis, axes), item)]


def with_items(graph: Graph, readers: list[fx.Node]) -> list[fx.Node]:
    """Return readers of a value, with the items of its parts in place of the call that gives them as a tuple."""
    found: list[fx.Node] = []
    for reader in readers:
        items = graph.users(reader) if graph.plays(reader, Parts) else []
        taken = bool(items) and all(item.target is operator.getitem for item in items)
        found += items if taken else [reader]
    return found


_aten = torch.ops.aten

_PARTS: Any = {"shape": "same rank", "axes": "dim", "result": "parts"}
# fmt: off
row("getitem", Item, "input index", operator.getitem)
row("split", Split, "tensor split_size_or_sections dim", torch.split, **_PARTS)
row("split", Split, "input split_size dim", "split", _aten.split.Tensor, _aten.split.sizes, **_PARTS)
row("split", Split, "input split_sizes dim",
    "split_with_sizes", torch.split_with_sizes, _aten.split_with_sizes.default, **_PARTS)
row("chunk", Chunk, "input chunks dim", "chunk", torch.chunk, _aten.chunk.default, **_PARTS)
row("unbind", Unbind, "input dim", "unbind", torch.unbind, _aten.unbind.int, rank=one_less, axes="dim", result="parts")
