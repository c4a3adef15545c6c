"""Calls that move elements: other orders and numbers of axes, shuffles, copies, and means along some axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import Function, Method, Single
from tests.operators.sample import BATCH, IMAGE, LINE, PER_CHANNEL, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
LAST = along(-1)
ALIKE = along(1, alike=24)
"""Affines of flattened images, the same for all elements of a channel."""


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _orders(x)
    yield from _new_axes(x)
    yield from _copies_along_axes(x)
    yield from _flattened(x)
    yield from _reshaped(x)
    yield from _unflattened(x)
    yield from _shuffles(x)
    yield from _means(x)
    yield from _copies(x)
    yield from _casts()


def _orders(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("permute", 0, 2, 3, 1), x, LAST)
    yield carrier(Method("permute", (2, 0, 1, 3)), x, along(0, 3), along(2, 3))
    yield carrier(Method("permute", dims=(0, -1, 1, -2)), x, PER_CHANNEL, LAST)
    yield carrier(Function(torch.permute, (3, 1, 0, 2)), x)
    yield carrier(Function(torch.permute, dims=[0, 3, 2, 1], by_keyword="input"), x, LAST)
    yield carrier(Function(aten.permute.default, [0, 2, 3, 1]), x, LAST)
    yield carrier(Method("transpose", -1, -2), x)
    yield carrier(Method("transpose", dim0=3, dim1=0), x, along(0, 1), along(1, 3))
    yield carrier(Method("transpose", 1, 3), x, LAST)
    yield carrier(Method("swapaxes", -1, -3), x, LAST)
    yield carrier(Method("swapaxes", 2, -1), x, along(2, 3), along(2, 3))
    for transpose in (torch.transpose, torch.swapaxes, aten.transpose.int, aten.swapaxes.default):
        yield carrier(Function(transpose, -1, -3), x, PER_CHANNEL, LAST)
        yield carrier(Function(transpose, 1, 2), x, along(2))
    for name, move in (("movedim", torch.movedim), ("moveaxis", torch.moveaxis)):
        yield carrier(Method(name, 1, -1), x, LAST)
        yield carrier(Method(name, (3, 0), (1, -1)), x, along(1, 2), along(2, 3))
        yield carrier(Method(name, source=-1, destination=1), x, PER_CHANNEL, LAST)
        yield carrier(Function(move, (0, 1), (2, 0)), x, along(0))
        yield carrier(Function(move, 1, 2), x, along(2))
    for one, several in ((aten.movedim.int, aten.movedim.intlist), (aten.moveaxis.int, aten.moveaxis.intlist)):
        yield carrier(Function(one, 1, -2), x, along(2))
        yield carrier(Function(several, [0, 1], [-1, 1]), x)


def _new_axes(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("unsqueeze", -1), x)
    yield carrier(Method("unsqueeze", 1), x, along(0, 2), along(0, 1))
    yield carrier(Method("unsqueeze", dim=2), x)
    yield carrier(Method("unsqueeze", dim=-3), x)
    for unsqueeze in (torch.unsqueeze, aten.unsqueeze.default):
        yield carrier(Function(unsqueeze, -5), x, along(2))
        yield carrier(Function(unsqueeze, 0), x, along(2))
        yield carrier(Function(unsqueeze, -4), x, along(2))
    thin = randn(2, 8, 1, 4)
    yield carrier(Method("squeeze", -2), thin)
    yield carrier(Method("squeeze", dim=2), thin, along(0, 2), along(0, 3))
    yield carrier(Method("squeeze", 2), thin)
    yield carrier(Function(torch.squeeze, (2,)), thin)
    yield carrier(Function(torch.squeeze, dim=-2, by_keyword="input"), thin)
    yield carrier(Function(torch.squeeze, 0), randn(1, 8, 6, 4), along(0))
    yield carrier(Function(aten.squeeze.dim, 2), thin)
    yield carrier(Function(aten.squeeze.dims, [-2]), thin)


def _copies_along_axes(x: Tensor) -> Iterator[Sample]:
    thin = randn(2, 8, 1, 4)
    yield carrier(Method("expand", -1, -1, 6, -1), thin)
    yield carrier(Method("expand", (5, 2, 8, 6, 4)), thin, along(1, 2, 4), along(0, 1, 3))
    yield carrier(Method("expand", 2, 8, 6, 4), thin)
    yield carrier(Function(aten.expand.default, [3, -1, -1, 6, -1], implicit=False), thin, along(2))
    yield carrier(Function(aten.expand.default, [-1, -1, 6, -1]), thin)
    yield carrier(Method("repeat", 1, 1, 2, 3), x)
    yield carrier(Method("repeat", 1, 3, 1, 2), x, along(2), along(1, 2))
    yield carrier(Method("repeat", 1, 3, 1, 2), x, None, along(1, 2, 3))
    yield carrier(Method("repeat", (3, 1, 1, 2, 2)), x, along(2))
    yield carrier(Function(aten.repeat.default, [5, 1, 2, 1]), x)
    yield carrier(Function(aten.repeat.default, [7, 1, 1, 1, 2]), x, along(2))


def _flattened(x: Tensor) -> Iterator[Sample]:
    yield carrier(Single(nn.Flatten(2)), x)
    yield carrier(Single(nn.Flatten()), x, PER_CHANNEL, along(1, 2, 3))
    yield carrier(Single(nn.Flatten(0, -2)), x, LAST, LAST)
    yield carrier(Method("flatten", 1, 3), x, ALIKE)
    yield carrier(Method("flatten"), x, along(0), along(0, 1, 2, 3))
    yield carrier(Method("flatten", -2), x)
    yield carrier(Method("flatten", 1, -1), x, ALIKE)
    for flatten in (torch.flatten, aten.flatten.using_ints):
        yield carrier(Function(flatten, 0, 1), x, LAST, LAST)
        yield carrier(Function(flatten, 1, 2), x, along(1, 2), along(1, 2, 3))
        yield carrier(Function(flatten, start_dim=1, end_dim=3), x, ALIKE)
        yield carrier(Function(flatten, 2), x)


def _reshaped(x: Tensor) -> Iterator[Sample]:
    for name in ("view", "reshape"):
        yield carrier(Method(name, 2, 8, -1), x)
        yield carrier(Method(name, (2, 2, 4, 24)), x, along(1, 2))
        yield carrier(Method(name, 2, 8, 4, 6), x, along(2), along(2, 3))
        yield carrier(Method(name, 2, 4, 2, 4, 6), x, along(1, 2, 3, 4), along(1, 2, 3))
        yield carrier(Method(name, 96, -1), x, LAST, LAST)
    for reshape in (torch.reshape, aten.view.default, aten.reshape.default, aten._unsafe_view.default):
        yield carrier(Function(reshape, [2, 8, 24]), x)
        yield carrier(Function(reshape, [2, -1]), x, PER_CHANNEL, along(1, 2, 3))
        yield carrier(Function(reshape, [2, 192]), x, ALIKE)
    for name in ("view_as", "reshape_as"):
        overload = getattr(aten, name).default
        yield carrier(Method(name, randn(2, 192)), x, PER_CHANNEL, along(1, 2, 3))
        yield carrier(Method(name, randn(2, 8, 24)), x)
        yield carrier(Function(overload, randn(2, 8, 24)), x)


def _unflattened(x: Tensor) -> Iterator[Sample]:
    yield carrier(Single(nn.Unflatten(1, (2, 4))), x, along(1, 2))
    yield carrier(Single(nn.Unflatten(-2, (3, 2))), x)
    yield carrier(Method("unflatten", -3, (4, -1)), x, along(1, 2))
    yield carrier(Method("unflatten", dim=2, sizes=(2, 3)), x, along(1, 2), along(1, 2))
    for unflatten in (torch.unflatten, aten.unflatten.int):
        yield carrier(Function(unflatten, 1, [2, 2, 2]), x, along(1, 2, 3))
        yield carrier(Function(unflatten, -1, [2, -1]), x)


def _shuffles(x: Tensor) -> Iterator[Sample]:
    fours, batches, one = along(1, alike=4), randn(3, 2, 8, 6, 4), x[0]
    for shuffle in (torch.channel_shuffle, aten.channel_shuffle.default):
        yield carrier(Function(shuffle, 4), x)
        yield carrier(Function(shuffle, 2), x)
    yield carrier(Function(F.channel_shuffle, groups=4, by_keyword="input"), randn(*LINE))
    yield carrier(Single(nn.ChannelShuffle(2)), x)
    yield carrier(Single(nn.PixelShuffle(2)), x, PER_CHANNEL, fours)
    yield carrier(Single(nn.PixelUnshuffle(2)), x, fours)
    for up in (torch.pixel_shuffle, aten.pixel_shuffle.default):
        yield carrier(Function(up, 2), batches, along(2), along(2, alike=4))
        yield carrier(Function(up, 2), one, along(0), along(0, alike=4))
        yield carrier(Function(up, 1), x)
        yield carrier(Function(up, upscale_factor=2), x, PER_CHANNEL, fours)
    for down in (torch.pixel_unshuffle, aten.pixel_unshuffle.default):
        yield carrier(Function(down, 2), batches, along(2, alike=4), along(2))
        yield carrier(Function(down, 2), one, along(0, alike=4), along(0))
        yield carrier(Function(down, downscale_factor=2), x, fours)


def _means(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("mean", (2, 3)), x)
    yield carrier(Method("mean", 1), x, along(0, 2), along(0, 3))
    yield carrier(Method("mean", -2, keepdim=True), x, along(1, 3), along(1, 3))
    yield carrier(Method("mean", dim=[-1, -2], keepdim=True), x)
    for mean in (torch.mean, aten.mean.dim):
        yield carrier(Function(mean, [1, 2]), x, LAST, LAST)
        yield carrier(Function(mean, [0, -1]), x, along(0))
        yield carrier(Function(mean, [-1], True), x)


def _copies(x: Tensor) -> Iterator[Sample]:
    contiguous = aten.contiguous.default
    for call in (
        *(Method("contiguous"), Method("contiguous", memory_format=torch.channels_last)),
        *(Function(contiguous), Function(contiguous, memory_format=torch.channels_last)),
        *(Method("clone"), Method("clone", memory_format=torch.contiguous_format), Function(aten.alias.default)),
    ):
        yield carrier(call, x)


def _casts() -> Iterator[Sample]:
    """To the dtype that the value has; powers of two, so that no dtype rounds anything."""
    x, single, exact = randn(*BATCH), randn(*BATCH).float(), along(1, exact=True)
    options: dict[str, Any] = {"dtype": torch.float32}
    for call, value in (
        *((Method("to", torch.float32), single), (Method("to", "cpu"), x), (Method("to", randn(2)), x)),
        *((Method("to", dtype=torch.float64, copy=True), x), (Method("double"), x), (Method("float"), single)),
        *((Method("half"), single.half()), (Method("bfloat16"), single.bfloat16()), (Method("type_as", randn(2)), x)),
        *((Function(aten.to.dtype, torch.float32), single), (Function(aten.to.dtype, torch.float64, False, True), x)),
        *((Function(aten.to.device, torch.device("cpu"), torch.float64), x), (Function(aten.to.other, randn(2)), x)),
        *((Function(aten.to.dtype_layout, **options), single), (Function(aten._to_copy.default, **options), single)),
        (Function(aten.type_as.default, randn(2)), x),
    ):
        yield carrier(call, value, exact, exact)
