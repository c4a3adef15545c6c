"""Slices of values along one axis: an affine of a slice is one of the whole, with the identity elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from fxfuse.operators.axes import one_less
from fxfuse.operators.register import VIEW, row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.facts import NodeView


class Cut(NamedTuple):
    """A range along one axis.

    Attributes:
        axis: counted from the last (negative), in the value that is cut.
        start: the first position; negative ones are counted from the end; None if the range is not known.
        stop: the position behind the last one; None for the end.
        drops: the axis goes, since the range is one position.
    """

    axis: int
    start: int | None
    stop: int | None = None
    drops: bool = False


class Piece(Carrier):
    """A slice of a value along one axis; readers of the rest are not affected."""

    gives_view: ClassVar[bool] = True

    @abstractmethod
    def cuts(self, axes: int | None = None) -> list[Cut]:
        """Return the ranges, from the first axis to the last.

        Args:
            axes: the number of axes of the value, where a check stands for the proof.
        """

    def counted(self, axis: Any, axes: int | None) -> int:
        """Return an axis of the value, counted from the last."""
        return axis - axes if axes is not None and isinstance(axis, int) and axis >= 0 else self.from_last(axis)

    @property
    def keeps_rank(self) -> bool:
        """Whether no axis goes."""
        return True

    def _checked_axes(self) -> int | None:
        """Return the assumed number of axes, if a norm checks it."""
        before = self.call.rank(self.input)
        proven = before is None or before.proven or not self.keeps_rank
        return None if proven else self.require_axes_of_result()

    def range_of(self, cut: Cut, size: int) -> range:
        """Return the positions among ``size``."""
        if cut.start is None:
            self.require_size(self.input, cut.axis)
        self.require(cut.start is not None)
        return range(size)[slice(cut.start, cut.stop)]

    @property
    def _is_all_that_is_read(self) -> bool:
        """Whether nobody reads the rest of the value."""
        users, parts = self.call.graph.users, self.call.arguments.get("input")
        readers = users(self.input)
        return readers == [self.node] or (readers == [parts] and users(readers[0]) == [self.node])

    def known_sizes(self) -> Mapping[int, int]:
        """Return the length of the range, and the sizes along the other axes where all stay."""
        cuts, before = self.cuts(), self.sizes_before()
        kept = {} if any(cut.drops for cut in cuts) else dict(before)
        for cut in cuts if kept else ():
            if cut.axis in before:
                del kept[cut.axis]
            if cut.axis in before and cut.start is not None:
                kept[cut.axis] = len(self.range_of(cut, before[cut.axis]))
        return kept

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put ones and zeros around the affine, for the rest of the value, where it varies or somebody reads that."""
        part, varied, others = self._around(affine)
        cuts = varied if self._is_all_that_is_read else varied + others
        self.require(len(cuts) <= 1)
        for cut in cuts:
            size = self.require_size(self.input, cut.axis)
            rows = self.range_of(cut, size)
            self.require(part.size(cut.axis) in (1, len(rows)))
            part = part.within(cut.axis, rows.start, len(rows), size)
        return [(self.input, part)]

    def pull_if_uniform(self, affine: Affine) -> Affine | None:
        """Return the affine of the whole value that is the same in the rest, None where it varies."""
        part, varied, _ = self._around(affine)
        return None if varied else part

    def _around(self, affine: Affine) -> tuple[Affine, list[Cut], list[Cut]]:
        """Return the affine with all axes of the value, and the ranges along which it varies, and does not."""
        cuts, part = self.cuts(self._checked_axes()), affine.trimmed()
        for cut in reversed(cuts):
            part = part.with_axis(cut.axis) if cut.drops else part
        part = part.trimmed()
        varied = [cut for cut in cuts if part.size(cut.axis) > 1]
        return part, varied, [cut for cut in cuts if cut not in varied]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Cut the affine likewise."""
        for cut in self.cuts():
            full = affine.with_rank(max(affine.rank, -cut.axis))

            def part(whole: Tensor, cut: Cut = cut) -> Tensor:
                rows = self.range_of(cut, whole.shape[cut.axis]) if whole.shape[cut.axis] > 1 else range(1)
                kept = whole.narrow(cut.axis, rows.start, len(rows))
                return kept.squeeze(cut.axis) if cut.drops else kept

            affine = full.rearrange(part)
        return affine

    def is_beside(self, other: NodeView | None) -> bool:
        """Whether another view is a slice of the same value that does not overlap this one."""
        if not isinstance(other, Piece) or other.input is not self.input:
            return False
        axes = self._checked_axes()
        mine, others = self.cuts(axes), other.cuts(axes)
        if len(mine) != 1 or len(others) != 1 or mine[0].axis != others[0].axis:
            return False
        size = self.call.graph.sizes.along(self.input, mine[0].axis)
        return size is not None and set(self.range_of(mine[0], size)).isdisjoint(self.range_of(others[0], size))


def stretch(axis: int, start: int, size: int) -> Cut:
    """Return the range of ``size`` positions from ``start`` on."""
    return Cut(axis, start, start + size)


def position(axis: int, number: int) -> Cut:
    """Return the range of one position, whose axis goes."""
    return Cut(axis, number, None if number == -1 else number + 1, drops=True)


def sliced(index: slice, axis: Callable[[], int]) -> list[Cut]:
    """Return the range of a slice, or nothing for the whole; where it is computed, or takes steps, it is not known."""
    plain = index.step in (None, 1) and isinstance(index.start or 0, int) and isinstance(index.stop or 0, int)
    if not plain:
        return [Cut(axis(), None)]
    return [] if (index.start or 0, index.stop) == (0, None) else [Cut(axis(), index.start or 0, index.stop)]


class Slice(Piece):
    """``aten.slice(x, dim, start, end, step)``."""

    def cuts(self, axes: int | None = None) -> list[Cut]:
        """Return the range, or nothing for the whole."""
        start, end, step = (self.call.get(name) for name in ("start", "end", "step"))
        end = None if isinstance(end, int) and end >= _LONGEST else end
        return sliced(slice(start, end, step), lambda: self.counted(self.call.get("dim", 0), axes))


class Narrow(Piece):
    """``x.narrow(dim, start, length)``."""

    def cuts(self, axes: int | None = None) -> list[Cut]:
        """Return the range."""
        axis, start, length = (self.call.get(name) for name in ("dim", "start", "length"))
        known = isinstance(start, int) and isinstance(length, int) and start >= 0
        return [stretch(self.counted(axis, axes), start, length) if known else Cut(self.counted(axis, axes), None)]


class Select(Piece):
    """``x.select(dim, index)``: one position along an axis, which goes."""

    @property
    def keeps_rank(self) -> bool:
        """Never."""
        return False

    def cuts(self, axes: int | None = None) -> list[Cut]:
        """Return the position."""
        axis, number = (self.call.get(name) for name in ("dim", "index"))
        self.require(isinstance(number, int))
        return [position(self.counted(axis, axes), number)]


_LONGEST = (1 << 63) - 1  # how ATen writes "to the end"
_aten = torch.ops.aten

# fmt: off
row("slice", Slice, "input dim start end step", _aten.slice.Tensor, axes="dim", **VIEW)
row("narrow", Narrow, "input dim start length", "narrow", torch.narrow, _aten.narrow.default, axes="dim", **VIEW)
row("select", Select, "input dim index", "select", torch.select, _aten.select.int,
    rank=one_less, axes="dim", result="view")
