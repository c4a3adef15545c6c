"""Steps of random models that an affine may pass, or end in; each keeps the shape of its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def channels_last(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def parts(x: Tensor) -> Tensor:
    one, other = x.split([1, 3], 1)
    return torch.cat([other, one], 1)


def chunked(x: Tensor) -> Tensor:
    one, other = x.chunk(2, -3)
    return torch.cat([one * 2, other.sub(1)], 1)


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0, 0, 1))[:, :, 1:, :-1]


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).transpose(-1, -2).reshape(x.shape)


# Of a value, a weight of shape (4, 4), and a vector of 4 channels.
CARRIERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "c.permute": lambda x, _w, _g: channels_last(x, lambda y: y.contiguous()),
    "c.linear": lambda x, w, g: channels_last(x, lambda y: F.linear(y, w, g)),
    "c.layer_norm": lambda x, _w, g: channels_last(x, lambda y: F.layer_norm(y, (4,), g, g)),
    "c.group_norm": lambda x, _w, g: F.group_norm(x, 2, g),
    "c.valid": lambda x, w, _g: F.conv2d(F.pad(x, (0, 1, 1, 0), "replicate"), w[:, :, None, None].repeat(1, 1, 2, 2)),
    "c.parts": lambda x, _w, _g: parts(x),
    "c.half": lambda x, _w, g: torch.cat([x[:, :2] * g[:2, None, None], x[:, 2:]], 1),
    "c.unbind": lambda x, _w, _g: torch.stack(x.unbind(1), 1),
    "c.chunk": lambda x, _w, _g: chunked(x),
    "c.select": lambda x, _w, _g: torch.cat([x[:, :3], x.select(1, 3).unsqueeze(1)], 1),
    "c.shuffle": lambda x, _w, _g: torch.channel_shuffle(x, 2),
    "c.pixels": lambda x, _w, _g: F.pixel_unshuffle(F.interpolate(x, scale_factor=2), 2)[:, ::4],
    "c.pixels2": lambda x, _w, _g: F.avg_pool2d(F.pixel_shuffle(x.repeat_interleave(4, 1), 2), 2),
    "c.resize": lambda x, _w, _g: F.avg_pool2d(F.interpolate(x, scale_factor=2, mode="bilinear"), 2),
    "c.average": lambda x, _w, _g: F.avg_pool2d(x, 3, 1, 1),
    "c.average2": lambda x, _w, _g: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "c.maximum": lambda x, _w, _g: F.max_pool2d(x, 3, 1, 1),
    "c.pad": lambda x, _w, _g: padded(x),
    "c.tokens": lambda x, _w, _g: tokens(x),
    "c.mean": lambda x, _w, _g: x.mean((2, 3), keepdim=True).expand(-1, -1, 5, 5),
    "c.squeeze": lambda x, _w, _g: x.mean(3, keepdim=True).squeeze(3).unsqueeze(-1).repeat(1, 1, 1, 5),
    "c.negative": lambda x, _w, g: -x * g[:, None, None],
    "c.numbers": lambda x, _w, _g: x * 2 / 0.7,
    "c.roll": lambda x, _w, _g: x.roll((1, 1), (2, 3)),
    "c.leaky": lambda x, _w, g: F.prelu(F.leaky_relu(x, -0.3), g),
    "c.flat": lambda x, _w, _g: x.flatten(0, 1).unflatten(0, (2, 4)),
    "c.view": lambda x, _w, _g: x.view(x.size(0), 2, 2, x.shape[2], 5).transpose(1, 2).reshape_as(x),
}
