"""Shuffles: channels change places, or become pixels and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.graph.aliases import writer_between
from fxfuse.operators.noops import Copy
from fxfuse.operators.register import row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.registry import ShapeAndResult


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


def shuffle_by_hand(graph: Graph, node: fx.Node) -> tuple[list[fx.Node], Any, Any] | None:
    """Return the nodes before the last of a shuffle of channels, and the sizes of both reshapes; None for others.

    ``x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)``
    """
    chain = [node]
    while len(chain) <= _STEPS and chain[-1].all_input_nodes:
        chain.append(chain[-1].all_input_nodes[0])
    if len(chain) <= _STEPS or any(len(inner.users) > 1 for inner in chain[1:_STEPS]):
        return None
    last, copy, swap, first, source = chain
    view = graph.view(copy) if graph.plays(copy, Copy) else None
    swaps = swap.target in ("transpose", torch.transpose) and set(swap.args[1:]) == {1, 2}
    if not (
        swaps and isinstance(view, Copy) and view.gives_order and {first.target, last.target} <= {"view", "reshape"}
    ):
        return None
    split, joined = map(_sizes, (first, last))
    known = split and joined and not any(isinstance(size, torch.dtype) for size in (*split, *joined))
    return (chain[1:], split, joined) if known and not writer_between(graph, source, copy, {last}) else None


_STEPS = 4


def _sizes(node: fx.Node) -> Any:
    """Return the sizes that are passed to a reshape."""
    sizes = node.args[1:]
    return sizes[0] if sizes and isinstance(sizes[0], (list, tuple)) else sizes


_aten = torch.ops.aten
_MOVED: ShapeAndResult = {"shape": "same rank", "result": "maybe view"}
# fmt: off
row("channel_shuffle", ChannelShuffle, "input groups",
    nn.ChannelShuffle, F.channel_shuffle, torch.channel_shuffle, _aten.channel_shuffle.default, **_MOVED)
row("pixel_shuffle", PixelShuffle, "input upscale_factor",
    nn.PixelShuffle, F.pixel_shuffle, torch.pixel_shuffle, _aten.pixel_shuffle.default, **_MOVED)
row("pixel_unshuffle", PixelUnshuffle, "input downscale_factor",
    nn.PixelUnshuffle, F.pixel_unshuffle, torch.pixel_unshuffle, _aten.pixel_unshuffle.default, **_MOVED)
