"""Convolution, transposed convolution and linear layers as one thing: a kernel in groups, and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from fxfuse.affine import Affine


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map per group and tap, and a bias per output channel.

    The arithmetic is done in float64, in one new tensor, and rounded only by whoever stores the result.

    Attributes:
        kernel: of shape ``(groups, out, in, *taps)``; ``out`` and ``in`` count the channels of one group.
        bias: of shape ``(groups * out,)``, or None for no bias.
    """

    kernel: Tensor
    bias: Tensor | None

    @property
    def out_channels(self) -> int:
        """The channels of the output, all groups together."""
        return self.kernel.shape[0] * self.kernel.shape[1]

    @property
    def in_channels(self) -> int:
        """The channels of the input, all groups together."""
        return self.kernel.shape[0] * self.kernel.shape[2]

    def then_affine(self, affine: Affine) -> LinearMap:
        """Return the map ``x -> scale * self(x) + shift``.

        Args:
            affine: two vectors of shape ``(groups * out,)``.
        """
        groups, out, _, *taps = self.kernel.shape
        scale = affine.scale.reshape(groups, out, 1, *[1] * len(taps))
        # scale * (K x + b) + shift = (scale * K) x + (scale * b + shift)
        bias = affine.shift if self.bias is None else affine.scale * self.bias + affine.shift
        return LinearMap(_scaled(self.kernel, scale), bias)

    def after_affine(self, affine: Affine) -> LinearMap:
        """Return the map ``x -> self(scale * x + shift)``; true where no padded zeros are read.

        Args:
            affine: two vectors of shape ``(groups * in,)``.
        """
        groups, out, inputs, *taps = self.kernel.shape
        scale, shift = affine.scale.reshape(groups, inputs), affine.shift.reshape(groups, inputs)
        # K (scale * x + shift) + b = (K * scale) x + (sum over inputs and taps of K * shift + b)
        summed_taps = self.kernel.reshape(groups, out, inputs, -1).to(shift.dtype).sum(-1)
        moved = torch.einsum("goi,gi->go", summed_taps, shift).flatten()
        kernel = _scaled(self.kernel, scale.reshape(groups, 1, inputs, *[1] * len(taps)))
        return LinearMap(kernel, moved if self.bias is None else moved + self.bias)


def _scaled(kernel: Tensor, scale: Tensor) -> Tensor:
    """Return ``kernel * scale`` in float64, at the cost of one tensor of that size."""
    return kernel.to(torch.float64, copy=True).mul_(scale)
