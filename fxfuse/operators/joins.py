"""Values put together: cat and stack.  An affine of the whole is one of each part."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import fx

from fxfuse.algebra.affine import Affine
from fxfuse.operators.axes import one_more
from fxfuse.operators.register import SAME_RANK, row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Join(Carrier):
    """An operation that puts a list of values one behind the other along an axis."""

    @property
    def inputs(self) -> list[fx.Node]:
        """The values that are put together."""
        listed = self.call.get("tensors")
        known = isinstance(listed, (list, tuple)) and bool(listed)
        self.require(known and all(isinstance(part, fx.Node) for part in listed))
        return list(listed)

    @property
    def input(self) -> fx.Node:
        """The first value."""
        return self.inputs[0]

    @abstractmethod
    def axis(self) -> int:
        """Return the axis of the result, counted from the last."""

    @abstractmethod
    def lengths(self) -> list[int]:
        """Return how much of the axis each value takes."""

    def whole_to_parts(self, affine: Affine) -> list[Affine]:
        """Return the part of an affine of the result that belongs to each value."""
        axis = self.axis()
        if affine.size(axis) == 1:
            return [affine] * len(self.inputs)
        lengths = self.lengths()
        self.require(sum(lengths) == affine.size(axis))

        def pieces(whole: Tensor) -> tuple[Tensor, ...]:
            varies = -axis <= whole.ndim and whole.shape[axis] > 1
            return whole.split(lengths, axis) if varies else (whole,) * len(lengths)

        return [Affine(*pair, affine.shifts) for pair in zip(pieces(affine.scale), pieces(affine.shift), strict=True)]

    def part_to_whole(self, affine: Affine, number: int) -> Affine:
        """Return the affine of the result that is ``affine`` where value ``number`` is, and nothing elsewhere."""
        axis, lengths = self.axis(), self.lengths()
        self.require(affine.size(axis) in (1, lengths[number]))
        return affine.within(axis, sum(lengths[:number]), lengths[number], sum(lengths))


class Concatenation(Join):
    """``cat``: along an axis that is there."""

    def axis(self) -> int:
        """Return the axis, counted from the last."""
        axis = self.call.get("dim", 0)
        self.require(isinstance(axis, int))
        return int(axis) if axis < 0 else axis - self.require_axes_of_result()

    def lengths(self) -> list[int]:
        """Return the sizes of the values along the axis."""
        axis = self.axis()
        return [self.require_size(part, axis) for part in self.inputs]

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sum of the sizes along the axis, and the other sizes of the first value."""
        axis, before = self.axis(), [self.call.graph.sizes.all(part) for part in self.inputs]
        if self.call.get("dim", 0) >= 0:
            self.require_axes(self.node)  # the check of a norm proves a number of axes for its own fold alone
        rest = {other: size for other, size in before[0].items() if other != axis}
        return rest | ({axis: sum(b[axis] for b in before)} if all(axis in b for b in before) else {})

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Give each value its part; a value that is put together with nothing is the whole, of whatever size."""
        if len(self.inputs) == 1:
            return [(self.input, affine)]
        return list(zip(self.inputs, self.whole_to_parts(affine), strict=True))

    def push(self, affine: Affine, source: fx.Node) -> Affine:
        """Put ones and zeros where the other values are."""
        return self.part_to_whole(affine, self.inputs.index(source))


class Stack(Join):
    """``stack``: along a new axis."""

    def axis(self) -> int:
        """Return the new axis, counted from the last."""
        return self.from_last(self.call.get("dim", 0), new=True)

    def lengths(self) -> list[int]:
        """Return one position for each value."""
        return [1] * len(self.inputs)

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Give each value its position."""
        parts = self.whole_to_parts(affine)
        return [(value, part.without_axis(self.axis())) for value, part in zip(self.inputs, parts, strict=True)]

    def push(self, affine: Affine, source: fx.Node) -> Affine:
        """Put ones and zeros where the other values are."""
        return self.part_to_whole(affine.trimmed().with_axis(self.axis()), self.inputs.index(source))


_aten = torch.ops.aten
# fmt: off
row("cat", Concatenation, "tensors dim",
    torch.cat, torch.concat, torch.concatenate, _aten.cat.default, _aten.concat.default, _aten.concatenate.default,
    **SAME_RANK)
row("stack", Stack, "tensors dim", torch.stack, _aten.stack.default, rank=one_more, result="new")
