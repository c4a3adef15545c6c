"""The order of the axes in memory: what a result has in the fused model, it has in the lowered one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_IMAGES, _SPLIT_IMAGES = 4, 5


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


def in_one_piece(value: Tensor) -> Tensor:
    """Return what ``contiguous`` gives; of channels that lie last and were split and swapped, still with them last."""
    if value.dim() == _SPLIT_IMAGES and value.stride(1) == 1 and value.stride(2) == value.shape[1]:
        images = as_images(value.transpose(1, 2).flatten(1, 2))
        if images.is_contiguous(memory_format=torch.channels_last):
            return torch.native_channel_shuffle(images, value.shape[2]).unflatten(1, value.shape[1:3])
    return value.contiguous()


def as_images(value: Tensor) -> Tensor:
    """Return a reshaped value such that torch sees that channels lie last: it asks the step of one sample too."""
    if value.dim() == _IMAGES and value.stride(1) == 1 == value.shape[0] and value.stride(0) < value.stride(2):
        return value.as_strided(value.shape, (value.shape[2] * value.stride(2), *value.stride()[1:]))
    return value
