"""Parts of values along one axis: an affine of a part is one of the whole, with the identity elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from fxfuse.operators.axes import one_less
from fxfuse.operators.register import VIEW, row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.facts import NodeView


class Cut(NamedTuple):
    """A range along one axis.

    Attributes:
        axis: counted from the last (negative), in the value that is cut.
        start: the first position; negative ones are counted from the end.
        stop: the position behind the last one; None for the end.
        drops: the axis goes, since the range is one position.
    """

    axis: int
    start: int
    stop: int | None
    drops: bool = False

    def range(self, size: int) -> range:
        """Return the positions among ``size``."""
        return range(size)[slice(self.start, self.stop)]


class Piece(Carrier):
    """A part of a value along one axis; whoever reads the rest is not concerned."""

    gives_view: ClassVar[bool] = True

    @abstractmethod
    def cuts(self) -> list[Cut]:
        """Return the ranges, from the first axis to the last."""

    def only_cut(self) -> Cut:
        """Return the range, if there is one."""
        cuts = self.cuts()
        self.require(len(cuts) == 1)
        return cuts[0]

    def known_sizes(self) -> Mapping[int, int]:
        """Return the length of the range, and the sizes along the other axes where all stay."""
        cuts, before = self.cuts(), self.sizes_before()
        kept = {} if any(cut.drops for cut in cuts) else dict(before)
        for cut in cuts if kept else ():
            if cut.axis in before:
                kept[cut.axis] = len(cut.range(before[cut.axis]))
        return kept

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put ones and zeros around the affine, for the rest of the value."""
        cut = self.only_cut()
        size = self.require_size(self.input, cut.axis)
        rows = cut.range(size)
        part = affine.trimmed().with_axis(cut.axis) if cut.drops else affine.trimmed()
        self.require(part.size(cut.axis) in (1, len(rows)))
        return [(self.input, part.within(cut.axis, rows.start, len(rows), size))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Cut the affine likewise."""
        for cut in self.cuts():
            full = affine.with_rank(max(affine.rank, -cut.axis))

            def part(whole: Tensor, cut: Cut = cut) -> Tensor:
                rows = cut.range(whole.shape[cut.axis]) if whole.shape[cut.axis] > 1 else range(1)
                kept = whole.narrow(cut.axis, rows.start, len(rows))
                return kept.squeeze(cut.axis) if cut.drops else kept

            affine = full.rearrange(part)
        return affine

    def is_beside(self, other: NodeView | None) -> bool:
        """Whether another view is of a part of the same value that has nothing in common with this one."""
        if not isinstance(other, Piece) or other.input is not self.input:
            return False
        mine, others = self.cuts(), other.cuts()
        if len(mine) != 1 or len(others) != 1 or mine[0].axis != others[0].axis:
            return False
        size = self.call.graph.sizes.along(self.input, mine[0].axis)
        return size is not None and set(mine[0].range(size)).isdisjoint(others[0].range(size))


def stretch(axis: int, start: int, size: int) -> Cut:
    """Return the range of so many positions."""
    return Cut(axis, start, start + size)


def position(axis: int, number: int) -> Cut:
    """Return the range of one position, whose axis goes."""
    return Cut(axis, number, None if number == -1 else number + 1, drops=True)


class Slice(Piece):
    """``aten.slice(x, dim, start, end, step)``."""

    def cuts(self) -> list[Cut]:
        """Return the range, or nothing for the whole."""
        axis, start, end, step = (
            self.call.get(n, d) for n, d in (("dim", 0), ("start", None), ("end", None), ("step", 1))
        )
        self.require(all(isinstance(n or 0, int) for n in (start, end)) and step == 1)
        end = None if end is None or end >= _LONGEST else end
        return [] if (start or 0, end) == (0, None) else [Cut(self.from_last(axis), start or 0, end)]


class Narrow(Piece):
    """``x.narrow(dim, start, length)``."""

    def cuts(self) -> list[Cut]:
        """Return the range."""
        axis, start, length = (self.call.get(name) for name in ("dim", "start", "length"))
        self.require(isinstance(start, int) and isinstance(length, int) and start >= 0)
        return [stretch(self.from_last(axis), start, length)]


class Select(Piece):
    """``x.select(dim, index)``: one position along an axis, which goes."""

    def cuts(self) -> list[Cut]:
        """Return the position."""
        axis, number = (self.call.get(name) for name in ("dim", "index"))
        self.require(isinstance(number, int))
        return [position(self.from_last(axis), number)]


_LONGEST = (1 << 63) - 1  # how ATen writes "to the end"
_aten = torch.ops.aten

# fmt: off
row("slice", Slice, "input dim start end step", _aten.slice.Tensor, **VIEW)
row("narrow", Narrow, "input dim start length", "narrow", torch.narrow, _aten.narrow.default, **VIEW)
row("select", Select, "input dim index", "select", torch.select, _aten.select.int, rank=one_less, result="view")
