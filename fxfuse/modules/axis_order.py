"""The order of the axes in memory: what a result has in the fused model, it has in the lowered one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_IMAGES = 4


def order_of(value: Tensor) -> tuple[int, ...]:
    """Return the axes of a value, the one with the largest steps in memory first: (0, 2, 3, 1) with channels last."""
    strides = list(value.stride())
    if strides and value.shape[0] == 1:
        strides[0] = max(strides) + 1  # a single sample comes first, whatever its step is called
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def order_of_result(value: Any) -> tuple[int, ...] | None:
    """Return the order of the axes that a result has to have, None where there is no choice."""
    return order_of(value) if isinstance(value, Tensor) and value.dim() > 2 else None


def in_order_of(value: Any, order: tuple[int, ...] | None) -> Any:
    """Return a value with its axes in an order, copied only where they are in another."""
    if order is None or not isinstance(value, Tensor) or value.dim() != len(order) or order_of(value) == order:
        return value
    return value.permute(order).contiguous().permute(sorted(range(len(order)), key=order.__getitem__))


def in_usual_order(value: Any) -> Any:
    """Return a value as code that may see its strides expects it."""
    return value.contiguous() if isinstance(value, Tensor) and value.dim() > 2 else value


def shuffled(value: Tensor, split: Any, joined: Any) -> Tensor:
    """Return ``value.view(split).transpose(1, 2).contiguous().view(joined)``, in one pass where channels lie last."""
    if value.dim() == _IMAGES and value.is_contiguous(memory_format=torch.channels_last) and value.numel():
        batch, channels, *image = value.shape
        groups = split[1]
        sizes = (batch, groups, channels // groups, *image) if groups > 0 == channels % groups else ()
        if _same(split, sizes) and _same(joined, value.shape):
            return torch.native_channel_shuffle(value, groups)
    return value.reshape(split).transpose(1, 2).contiguous().reshape(joined)


def averaged(value: Tensor, axes: Any, keeps: bool) -> Tensor:  # noqa: FBT001 - of a generated call
    """Return ``value.mean(axes, keeps)``; of images a pool takes half as long where channels lie last."""
    if value.dim() == _IMAGES and value.dtype is torch.float32 and value.is_cpu and value.numel():
        mean = F.avg_pool2d(value, value.shape[2:])
        return mean if keeps else mean.flatten(1)
    return value.mean(axes, keeps)


def _same(asked: Any, sizes: Any) -> bool:
    """Whether sizes are those that are asked for, one of which may be open."""
    pairs = list(zip(asked, sizes, strict=False))
    return len(asked) == len(sizes) and sum(a == -1 for a, _ in pairs) <= 1 and all(a in (-1, n) for a, n in pairs)
