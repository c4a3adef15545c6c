"""Convolution, transposed convolution and linear layers as one thing: a kernel in groups, and a bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fxfuse.algebra.tape import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from fxfuse.algebra.affine import Affine

_BLOCK = 1 << 18  # elements that are in float64 at a time: they stay in the cache, and cost no memory to speak of
_SMALL = 1 << 15  # elements up to which one mixed-dtype multiplication is as fast as convert, multiply, convert


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map per group and tap, and a bias per output channel.

    Example:
        >>> import torch
        >>> from fxfuse.extend import LinearMap
        >>> LinearMap(torch.ones(2, 4, 3, 5, 5), None).out_channels  # two groups, each from 3 channels to 4
        8

    Scales only gather in ``factor``: the kernel itself is computed, in float64, when it is read or stored.

    Attributes:
        stored: of shape ``(groups, out, in, *taps)``; ``out`` and ``in`` count the channels of one group.
        bias: of shape ``(groups * out,)``, or None for no bias.
        factor: what ``stored`` is multiplied with, broadcastable against it, in float64; None for 1.
    """

    stored: Tensor
    bias: Tensor | None
    factor: Tensor | None = None

    @property
    def kernel(self) -> Tensor:
        """The kernel, as a whole: in float64 if anything was done to it."""
        return self.stored if self.factor is None else self.stored * self.factor

    @property
    def out_channels(self) -> int:
        """The channels of the output, all groups together."""
        return self.stored.shape[0] * self.stored.shape[1]

    @property
    def in_channels(self) -> int:
        """The channels of the input, all groups together."""
        return self.stored.shape[0] * self.stored.shape[2]

    def then_affine(self, affine: Affine) -> LinearMap:
        """Return the map ``x -> scale * self(x) + shift``.

        Args:
            affine: two vectors of shape ``(groups * out,)``.
        """
        groups, out, _, *taps = self.stored.shape
        factor = multiplied(self.factor, affine.scale, [groups, out, 1, *[1] * len(taps)])
        # scale * (K x + b) + shift = (scale * K) x + (scale * b + shift)
        if self.bias is not None:
            return LinearMap(self.stored, moved(affine.scale, self.bias, affine.shift), factor)
        return LinearMap(self.stored, affine.shift if affine.shifts else None, factor)

    def after_affine(self, affine: Affine) -> LinearMap:
        """Return the map ``x -> self(scale * x + shift)``; true where no padded zeros are read.

        Args:
            affine: two vectors of shape ``(groups * in,)``.
        """
        groups, _, inputs, *taps = self.stored.shape
        factor = multiplied(self.factor, affine.scale, [groups, 1, inputs, *[1] * len(taps)])
        if not affine.shifts:
            return LinearMap(self.stored, self.bias, factor)
        # K (scale * x + shift) + b = (K * scale) x + (sum over inputs and taps of K * shift + b)
        shift = applied(self.stored, self.factor, affine.shift.reshape(groups, inputs))
        return LinearMap(self.stored, shift if self.bias is None else shift + self.bias, factor)

    def rounded(self, like: Tensor, *, inputs_first: bool = False) -> list[Tensor]:
        """Return a new weight, and the bias if there is one: the one rounding there is.

        Args:
            like: has the shape, dtype, device and layout that the weight gets.
            inputs_first: it is ``(groups * in, out, *taps)``, and not ``(groups * out, in, *taps)``.
        """
        return rounded(like, self.stored, self.factor, self.bias, inputs_first)


@step()
def multiplied(factor: Tensor | None, scale: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a scale in a shape, in float64, times another factor."""
    scale = scale.reshape(shape).to(torch.float64)
    return scale if factor is None else factor * scale


@step()
def moved(scale: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """Return ``scale * bias + shift``."""
    return scale * bias + shift


@step(shares=True)
def split(weight: Tensor, groups: int, inputs_first: bool) -> Tensor:  # noqa: FBT001 - noted by position
    """Return a view of a weight as ``(groups, out, in, *taps)``."""
    view = weight.detach().unflatten(0, (groups, -1))
    return view.transpose(1, 2) if inputs_first else view


@step()
def rounded(
    like: Tensor,
    stored: Tensor,
    factor: Tensor | None,
    bias: Tensor | None,
    inputs_first: bool,  # noqa: FBT001
) -> list[Tensor]:
    """Return ``stored * factor``, computed in float64, in a weight of its own, and the bias in its dtype, if any."""
    weight = torch.empty_like(like).detach()
    _round_into(split(weight, stored.shape[0], inputs_first), stored, factor)
    return [weight] if bias is None else [weight, bias.detach().to(like.device, like.dtype, copy=True)]


@step()
def table(like: Tensor, stored: Tensor, factor: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``stored * factor + bias`` of shape ``(1, out, in)`` as a table of shape ``(in, out)``, rounded once."""
    weight = torch.empty_like(like).detach()
    target = weight.t().unsqueeze(0)
    for position, size, block in _blocks(stored, factor, 1, wide=True):
        shift = 0.0 if bias is None else bias.narrow(0, position, size).to(torch.float64)[:, None]
        target.narrow(1, position, size).copy_(block + shift)
    return weight


def _round_into(target: Tensor, stored: Tensor, factor: Tensor | None) -> None:
    """Write ``stored * factor`` into ``target``, block by block along its longer channel axis."""
    if factor is not None and stored.numel() <= _SMALL:
        torch.mul(stored, factor, out=target)  # computed in float64, and rounded
        return
    axis = 0 if stored.shape[0] > stored.shape[1] else 1
    for position, size, block in _blocks(stored, factor, axis):
        target.narrow(axis, position, size).copy_(block)


@step()
def applied(stored: Tensor, factor: Tensor | None, shift: Tensor) -> Tensor:
    """Return what ``stored * factor`` makes of a value that is ``shift`` everywhere, in float64.

    Args:
        stored: of shape ``(groups, out, in, *taps)``.
        factor: broadcastable against it, or None for 1.
        shift: of shape ``(groups, in)``.
    """
    blocks = _blocks(stored, factor, 1, wide=True)
    matrices = (_summed_taps(block.reshape(*block.shape[:3], -1)) for _, _, block in blocks)
    return torch.cat([torch.einsum("goi,gi->go", matrix, shift) for matrix in matrices], 1).flatten()


@step()
def are_finite(*tensors: Tensor) -> bool:
    """Whether every element is a finite number."""
    # A sum is finite only if every element is; where it overflows by itself, the extrema tell.
    return all(
        math.isfinite(tensor.sum().item()) or all(math.isfinite(t.item()) for t in torch.aminmax(tensor))
        for tensor in tensors
    )


def _blocks(
    stored: Tensor, factor: Tensor | None, axis: int, *, wide: bool = False
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield slices of the kernel along an axis: where each begins, how long it is, and what it is until the next.

    They are in float64 if that is asked for with ``wide``, or if there is a factor.
    """
    length = stored.shape[axis]
    slices = max(1, _BLOCK * length // max(1, stored.numel()))
    room: Tensor | None = None  # for all of them: new memory each time costs as much as the arithmetic
    for position in range(0, length, slices):
        size = min(slices, length - position)
        block = stored.narrow(axis, position, size)
        if wide or factor is not None:
            room = torch.empty_like(block, dtype=torch.float64) if room is None else room.narrow(axis, 0, size)
            block = room.copy_(block)
        if factor is not None:
            one_for_all = factor.shape[axis] == 1
            block.mul_(factor if one_for_all else factor.narrow(axis, position, size))
        yield position, size, block


def _summed_taps(kernel: Tensor) -> Tensor:
    """Return the sum over the last axis, of which a single element is no sum and needs no copy."""
    return kernel.sum(-1) if kernel.shape[-1] != 1 else kernel.squeeze(-1)


@step(shares=True)
def vector_of(bias: Tensor, channels: int) -> Tensor:
    """Return a bias as a vector with an element for each channel."""
    return bias.detach().reshape(-1).expand(channels)
