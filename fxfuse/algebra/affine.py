"""The one transformation that is folded: ``x -> scale * x + shift``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fxfuse.algebra.tape import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Affine:
    """``x -> scale * x + shift``, by ordinary broadcasting against ``x``.

    There is no "channel axis": a per-channel affine of an image is of shape ``(C, 1, 1)``.  That is why an
    affine passes a permutation or a concatenation by making the same move itself.

    Example:
        >>> import torch
        >>> from fxfuse.extend import Affine
        >>> affine = Affine(torch.tensor([2.0]), torch.tensor([1.0]))
        >>> affine(torch.tensor([3.0, 4.0]))
        tensor([7., 9.])

    Attributes:
        scale: the factor, broadcastable against the value; float64 wherever fxfuse makes it.
        shift: the summand, broadcastable against the value.
        shifts: False if the shift is zero whatever the weights are, as that of a product is; it goes by the operations
            and never by values, so that other weights of the same model fold in the same way.
    """

    scale: Tensor
    shift: Tensor
    shifts: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``scale * x + shift``."""
        return self.scale * x + self.shift

    def after(self, first: Affine) -> Affine:
        """Return the affine that applies ``first``, then this one."""
        # = scale * (first.scale * x + first.shift) + shift
        return Affine(self.scale * first.scale, self.scale * first.shift + self.shift, self.shifts or first.shifts)

    def rearrange(self, move: Callable[[Tensor], Tensor]) -> Affine:
        """Return the affine whose two tensors have made the same ``move``."""
        return Affine(move(self.scale), move(self.shift), self.shifts)

    def with_rank(self, rank: int) -> Affine:
        """Return the same affine with leading axes of size one, up to ``rank`` axes."""
        if self.scale.ndim == self.shift.ndim == rank:
            return self
        return self.rearrange(lambda t: t.reshape((1,) * (rank - t.ndim) + tuple(t.shape)))

    def trimmed(self) -> Affine:
        """Return the same affine without leading axes of size one."""
        rank = self.rank
        full = self.with_rank(rank)
        sizes = [max(pair) for pair in zip(full.scale.shape, full.shift.shape, strict=True)]
        lead = next((axis for axis, size in enumerate(sizes) if size != 1), rank)
        return full.rearrange(lambda t: t.reshape(t.shape[lead:])) if lead else full

    def equals(self, other: Affine) -> bool:
        """Whether another affine has the same elements in the same shapes."""
        pairs = ((self.scale, other.scale), (self.shift, other.shift))
        return all(torch.equal(one, two.to(one.device)) for one, two in pairs)

    @property
    def rank(self) -> int:
        """The number of axes that the affine spans, counted from the last one of the value."""
        return max(self.scale.ndim, self.shift.ndim)

    def size(self, axis: int) -> int:
        """Return the size along an axis counted from the last (negative): one, or that of the value."""
        return max(t.shape[axis] if -axis <= t.ndim else 1 for t in (self.scale, self.shift))

    def collapsed(self, axes: Iterable[int]) -> Affine:
        """Return the same affine with one element along those of some axes along which it does not vary.

        Args:
            axes: counted from the first; along them the affine is known to be as long as the value, or of one element.
        """
        result = self
        for axis in axes:
            tensors = (result.scale, result.shift)
            longer = [t for t in tensors if t.shape[axis] > 1]
            if longer and all(bool((t == t.narrow(axis, 0, 1)).all()) for t in longer):
                result = result.rearrange(lambda t, axis=axis: t.narrow(axis, 0, 1))  # type: ignore[misc] # bound at once
        return result

    def with_axis(self, axis: int) -> Affine:
        """Return the affine of the value with one more axis, of size one, at ``axis`` (negative)."""
        return self.with_rank(max(self.rank, -axis - 1)).rearrange(lambda t: t.unsqueeze(axis))

    def without_axis(self, axis: int) -> Affine:
        """Return the affine of the value without its axis ``axis`` (negative), where there is one size along it."""
        return self.with_rank(max(self.rank, -axis)).rearrange(lambda t: t.squeeze(axis))

    def within(self, axis: int, start: int, length: int, size: int) -> Affine:
        """Return the affine of a larger value: this one on a range, the identity on the rest.

        Args:
            axis: the axis along which the value is larger (negative).
            start: where this value begins.
            length: how long it is there.
            size: how long the larger value is there.
        """
        full = self.with_rank(max(self.rank, -axis))

        def around(part: Tensor, rest: float) -> Tensor:
            shape = list(part.shape)
            shape[axis] = size
            whole = part.new_full(shape, rest)
            whole.narrow(axis, start, length).copy_(part)
            return whole

        return Affine(around(full.scale, 1.0), around(full.shift, 0.0), self.shifts)

    def vector(self, axis: int, size: int) -> Affine | None:
        """Return the affine as two vectors along one axis of the value, or None where it is not per channel.

        Args:
            axis: the axis of the value, negative (counted from the last).
            size: the number of channels along that axis.

        Returns:
            An affine whose tensors are of shape ``(size,)``; None if it is wider than one along another axis
            (where it might enlarge the value, even if it does not vary) or does not fit the number of channels.
        """
        scale, shift = self.scale, self.shift
        if scale.shape != shift.shape:
            scale, shift = torch.broadcast_tensors(scale, shift)
        length = scale.shape[axis] if -axis <= scale.ndim else 1
        if length not in (1, size) or scale.numel() != length:  # it is wider along another axis
            return None
        scale, shift = vectors(scale, shift, size)
        return Affine(scale, shift, self.shifts)


@step(shares=True)
def vectors(scale: Tensor, shift: Tensor, size: int) -> list[Tensor]:
    """Return a scale and a shift of one or ``size`` elements as vectors."""
    return [t.reshape(-1) if t.numel() == size else t.reshape(-1).expand(size) for t in (scale, shift)]


@step()
def numbers(*values: float) -> list[Tensor]:
    """Return numbers as tensors without axes, in float64 on the CPU."""
    return [torch.tensor(value, dtype=torch.float64, device="cpu") for value in values]


@step(shares=True)
def shaped(scale: Tensor, shift: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Return a scale and a shift in another shape."""
    return [scale.view(shape), shift.view(shape)]
