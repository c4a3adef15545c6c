"""What random models call beside layers and rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

ARITHMETIC: list[Callable[[Any, Any], Any]] = [
    lambda x, c: x * c,
    lambda x, c: x + c,
    lambda x, c: c - x,
    lambda x, c: x / c,
    lambda x, c: x - c,
    lambda x, c: c * x,
    lambda x, c: torch.add(x, c, alpha=2),
    lambda x, _c: -x,
    lambda x, c: (x + c) * c,
]
WRITES: list[Callable[[Any, Any], Any]] = [
    lambda x, _c: x.relu_(),
    lambda x, c: x.mul_(c),
    lambda x, c: x.add_(c),
    lambda x, _c: F.leaky_relu_(x, 0.3),
    lambda x, c: (x.mul_(c), x)[1],
    lambda x, c: (x[:1].mul_(c[:1] if isinstance(c, Tensor) and c.ndim == x.ndim and len(c) > 1 else 2), x)[1],
    lambda x, _c: (x.view(-1).add_(1), x)[1],
]
IDLE: list[Callable[[], nn.Module]] = [nn.Identity, nn.Dropout, nn.Dropout, nn.Identity, nn.AlphaDropout]
CURVES: list[Callable[[], nn.Module]] = [
    nn.ReLU,
    nn.Sigmoid,
    lambda: nn.ReLU(inplace=True),
    nn.GELU,
    nn.Tanh,
    nn.LeakyReLU,
    nn.Hardswish,
    lambda: nn.Softmax(-1),
]
VIEWS: list[Callable[[Any], Any]] = [
    lambda x: x.view(x.shape),
    lambda x: x.flatten(1) if x.ndim > 1 else x,
    lambda x: x.transpose(1, -1) if x.ndim > 1 else x,
    lambda x: x.contiguous(),
    lambda x: x.reshape(x.shape[0], -1),
    lambda x: x.permute(*range(x.ndim)[::-1]),
    lambda x: x.unsqueeze(1),
    lambda x: x * x.shape[-1],
    lambda x: x.mean(-1, keepdim=True),
    lambda x: x.transpose(0, 1) if x.ndim > 1 else x,
    lambda x: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x,
    lambda x: x.detach(),
]
PLAIN_SUMS: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: torch.add(x, y, alpha=2),
    torch.rsub,
    lambda x, y: torch.stack([x, y, x]).sum(0),
    lambda x, y: sum([x, y]),
    lambda x, y: 2 * (x + y),
]
SUMS: list[Callable[[Any, Any], Any]] = [
    *PLAIN_SUMS,
    lambda x, y: x + y.sigmoid() * x,
    lambda x, y: x.add_(y),
    lambda x, y: x.sub_(y, alpha=3),
]
CATS: list[Callable[[Any, Any], Any]] = [
    lambda x, y: torch.cat([x, y], 1 if x.ndim > 1 else 0),
    lambda x, y: torch.cat([x, y, x], -1),
    lambda x, y: torch.stack([x, y], 1),
    lambda x, y: torch.cat([y, x]),
]
PARTS: list[Callable[[Any], Any]] = [
    lambda x: x.chunk(2, 1),
    lambda x: x.split([1, x.shape[1] - 1], 1),
    lambda x: (x[:, 1:], x[:, :1]),
    lambda x: (x.narrow(-1, 0, 1), x),
    lambda x: x.tensor_split(2, 0),
    lambda x: (x.unbind(1)[0], x.unbind(1)[-1]),
]
CASTS: list[Callable[[Any], Any]] = [
    lambda x: x.float(),
    lambda x: x.to(torch.float32),
    lambda x: x.half(),
    lambda x: x.double(),
    lambda x: x.to(torch.bfloat16),
]
