"""Operations that move elements and change none: an affine passes by making the same move."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fxfuse.operators.axes import count
from fxfuse.operators.register import VIEW, row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from fxfuse.algebra.affine import Affine


class Permute(Carrier):
    """Axes in another order."""

    gives_view: ClassVar[bool] = True

    @abstractmethod
    def order(self, rank: int) -> list[int]:
        """Return for each axis of the output the axis of the input that it was."""

    @property
    def known_rank(self) -> int | None:
        """The number of axes that the call itself proves."""
        return None

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sizes in the new order."""
        rank = self.known_rank or self.require_axes(self.input)
        pairs = ((position - rank, axis - rank) for position, axis in enumerate(self.order(rank)))
        before = self.sizes_before()
        return {after: before[axis] for after, axis in pairs if axis in before}

    def label_of(self, axis: int, rank: int) -> object:
        """Return what identifies the size of one of so many axes of the result; None for the unknown."""
        sizes = self.call.graph.sizes
        known = len(sizes.of(self.input)) == rank
        return sizes.label(self.input, self.order(rank)[axis]) if known else None

    def _rank(self, affine: Affine) -> int:
        proven = self.known_rank or self.require_axes(self.input)
        self.require(affine.rank <= proven)
        return proven

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put the axes back."""
        trimmed = affine.trimmed()
        rank = self._rank(trimmed)
        order = self.order(rank)
        back = [order.index(axis) for axis in range(rank)]
        return [(self.input, trimmed.with_rank(rank).rearrange(lambda t: t.permute(back)).trimmed())]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Move the axes along."""
        trimmed = affine.trimmed()
        rank = self._rank(trimmed)
        order = self.order(rank)
        return trimmed.with_rank(rank).rearrange(lambda t: t.permute(order)).trimmed()


class PermuteTo(Permute):
    """``permute(x, dims)``, or ``x.permute(*dims)``."""

    def _dims(self) -> list[Any]:
        dims = self.call.get("dims")
        self.require(isinstance(dims, (list, tuple)) and all(isinstance(d, int) for d in dims))
        return list(dims)

    @property
    def known_rank(self) -> int | None:
        """There is one number for each axis."""
        return len(self._dims())

    def order(self, rank: int) -> list[int]:
        """Return the numbers, counted from the left."""
        return [d % rank for d in self._dims()]


class Transpose(Permute):
    """Two axes change places."""

    def order(self, rank: int) -> list[int]:
        """Return all axes with two of them exchanged."""
        pair = [self.call.get(name) for name in ("dim0", "dim1")]
        self.require(all(isinstance(d, int) for d in pair))
        one, other = (d % rank for d in pair)
        order = list(range(rank))
        order[one], order[other] = order[other], order[one]
        return order


class MoveAxes(Permute):
    """``movedim``: some axes go elsewhere, the others keep their order."""

    def order(self, rank: int) -> list[int]:
        """Return the others in order, with the moved ones put between them."""
        start, end = (self._listed(name) for name in ("source", "destination"))
        self.require(len(start) == len(end) and all(isinstance(d, int) for d in (*start, *end)))
        moved = {to % rank: axis % rank for axis, to in zip(start, end, strict=True)}
        rest = iter([axis for axis in range(rank) if axis not in moved.values()])
        return [moved[position] if position in moved else next(rest) for position in range(rank)]

    def _listed(self, name: str) -> list[Any]:
        value = self.call.get(name)
        return list(value) if isinstance(value, (list, tuple)) else [value]


_aten = torch.ops.aten
# fmt: off
row("permute", PermuteTo, "input *dims", "permute", torch.permute, _aten.permute.default, rank=count("dims"), **VIEW)
row("transpose", Transpose, "input dim0 dim1",
    "transpose", "swapaxes", torch.transpose, torch.swapaxes, _aten.transpose.int, _aten.swapaxes.default,
    axes="dim0 dim1", **VIEW)
row("movedim", MoveAxes, "input source destination",
    "movedim", "moveaxis", torch.movedim, torch.moveaxis,
    _aten.movedim.int, _aten.movedim.intlist, _aten.moveaxis.int, _aten.moveaxis.intlist,
    axes="source destination", **VIEW)
