"""What brings a value to the shape and dtype that a row of the table wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tests.operators.calls import Method

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

LAYERS: dict[int, Any] = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def fitting(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> list[nn.Module]:
    """What makes a value of another shape and dtype, to be called one after the other."""
    found: list[nn.Module] = []
    for steps in (_axes, _sizes, _channels, _dtype):
        for module in steps(x, shape, dtype):
            found.append(module)
            x = module(x)
    return found


def _axes(x: Tensor, shape: tuple[int, ...], _dtype: torch.dtype) -> Iterator[nn.Module]:
    if x.ndim > len(shape):
        yield Method("flatten", len(shape) - 1) if shape else Method("mean")
    for _ in range(len(shape) - x.ndim):
        yield Method("unsqueeze", -1)


def _channels(x: Tensor, shape: tuple[int, ...], _dtype: torch.dtype) -> Iterator[nn.Module]:
    """A layer, the last but for a change of dtype, so that there is something to fold into."""
    if x.ndim in LAYERS and x.shape[1] != shape[1]:
        yield LAYERS[x.ndim](x.shape[1], shape[1], *[1] * (x.ndim > 2)).to(x.dtype)


def _sizes(x: Tensor, shape: tuple[int, ...], _dtype: torch.dtype) -> Iterator[nn.Module]:
    for axis, size in enumerate(shape):
        if axis == 1 and x.ndim in LAYERS:
            continue
        if x.shape[axis] < size:
            yield Method("repeat", *(-(-size // x.shape[n]) if n == axis else 1 for n in range(x.ndim)))
        if size % x.shape[axis]:
            yield Method("narrow", axis, 0, size)


def _dtype(x: Tensor, _shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[nn.Module]:
    if x.dtype != dtype:
        yield Method("to", dtype)
