"""Calls that shuffle channels, or move them into the image and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import Function, Single
from tests.operators.sample import IMAGE, LINE, PER_CHANNEL, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator


aten = torch.ops.aten


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
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
