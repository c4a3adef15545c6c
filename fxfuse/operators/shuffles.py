"""Shuffles: channels change places, or become pixels and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.operators.register import register
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine


class Shuffle(Carrier):
    """An operation on the channels of images, ``(..., channels, height, width)``."""

    channel_axis = -3

    def _factor(self, name: str) -> int:
        factor = self.call.get(name)
        self.require(isinstance(factor, int) and factor > 0)
        return int(factor)

    def _channels(self, affine: Affine) -> Affine:
        """Return the affine as vectors along the channels, or of one element."""
        axis = self.channel_axis
        others = [a for a in range(-max(affine.rank, -axis), 0) if a != axis]
        self.require(all(affine.size(a) == 1 for a in others))
        return affine.with_rank(max(affine.rank, -axis)).rearrange(torch.flatten)

    def _image(self, vectors: Affine) -> Affine:
        return vectors.rearrange(lambda t: t.reshape(-1, *[1] * (-self.channel_axis - 1)))


class ChannelShuffle(Shuffle):
    """``channel_shuffle``: channel ``g * n + c`` of ``G`` groups of ``n`` goes to ``c * G + g``."""

    @property
    def channel_axis(self) -> int:  # type: ignore[override] # it takes images of any number of axes
        """Axis 1."""
        return 1 - self.require_axes(self.input)

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put the channels back."""
        groups = self._factor("groups")
        return [(self.input, self._image(self._channels(affine).rearrange(lambda t: _swapped(t, -1, groups))))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Move the channels along."""
        groups = self._factor("groups")
        return self._image(self._channels(affine).rearrange(lambda t: _swapped(t, groups, -1)))


def _swapped(vector: Tensor, rows: int, columns: int) -> Tensor:
    return vector if vector.numel() == 1 else vector.reshape(rows, columns).t().flatten()


class PixelShuffle(Shuffle):
    """``pixel_shuffle``: ``(C * r * r, H, W)`` becomes ``(C, H * r, W * r)``."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Give each channel to the ``r * r`` that it comes from."""
        return [(self.input, self._image(_repeated(self._channels(affine), self._factor("upscale_factor") ** 2)))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Take one of each ``r * r`` channels, where they are the same."""
        return self._image(self._joined(self._channels(affine), self._factor("upscale_factor") ** 2))

    def _joined(self, vectors: Affine, count: int) -> Affine:
        def first(vector: Tensor) -> Tensor:
            if vector.numel() == 1:
                return vector
            rows = vector.reshape(-1, count)
            self.require(bool((rows == rows[:, :1]).all()))
            return rows[:, 0]

        return vectors.rearrange(first)


class PixelUnshuffle(PixelShuffle):
    """``pixel_unshuffle``: ``(C, H * r, W * r)`` becomes ``(C * r * r, H, W)``."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Take one of each ``r * r`` channels, where they are the same."""
        return [(self.input, self._image(self._joined(self._channels(affine), self._factor("downscale_factor") ** 2)))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Give each channel to the ``r * r`` that come from it."""
        return self._image(_repeated(self._channels(affine), self._factor("downscale_factor") ** 2))


def _repeated(vectors: Affine, count: int) -> Affine:
    return vectors.rearrange(lambda t: t if t.numel() == 1 else t.repeat_interleave(count))


_aten = torch.ops.aten
_ROWS = (
    ("channel_shuffle", ChannelShuffle, "groups", nn.ChannelShuffle),
    ("pixel_shuffle", PixelShuffle, "upscale_factor", nn.PixelShuffle),
    ("pixel_unshuffle", PixelUnshuffle, "downscale_factor", nn.PixelUnshuffle),
)
for _name, _view, _argument, _module in _ROWS:
    register(
        _name,
        _view,
        arguments=("input", _argument),
        modules=[_module],
        functions=[getattr(F, _name), getattr(torch, _name), getattr(_aten, _name).default],
    )
