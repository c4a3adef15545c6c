"""Operations that move elements and change none: an affine passes by making the same move."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.operator_table import register
from fxfuse.operators.roles import Carrier
from fxfuse.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.affine import Affine


class Permute(Carrier):
    """Axes in another order."""

    @abstractmethod
    def order(self, rank: int) -> list[int]:
        """Return for each axis of the output the axis of the input that it was."""

    @property
    def known_rank(self) -> int | None:
        """The number of axes that the call itself proves."""
        return None

    def _rank(self, affine: Affine) -> int:
        rank = self.call.rank(self.input)
        proven = self.known_rank or (rank.axes if rank is not None and rank.proven else None)
        if proven is None:
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self.call.graph.describe(self.input), detail="not known")
        require(affine.rank <= proven, Reason.NOT_LINEAR, value=self.call.path)
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
        dims = self.call.get("dims", ())
        listed = list(dims) if isinstance(dims, (list, tuple)) else list(self.call.graph.source(self.node).args[1:])
        require(all(isinstance(d, int) for d in listed), Reason.NOT_LINEAR, value=self.call.path)
        return listed

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
        pair = [self.call.get(name, None) for name in ("dim0", "dim1")]
        require(all(isinstance(d, int) for d in pair), Reason.NOT_LINEAR, value=self.call.path)
        one, other = (d % rank for d in pair)
        order = list(range(rank))
        order[one], order[other] = order[other], order[one]
        return order


_aten = torch.ops.aten

register(
    "permute",
    PermuteTo,
    arguments=("input", "dims"),
    methods=["permute"],
    functions=[torch.permute, _aten.permute.default],
)
register(
    "transpose",
    Transpose,
    arguments=("input", "dim0", "dim1"),
    methods=["transpose", "swapaxes"],
    functions=[torch.transpose, torch.swapaxes, _aten.transpose.int],
)
