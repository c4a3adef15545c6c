"""The order of the axes in memory: what a result has in the fused model, it has in the lowered one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Iterator


def order_of(value: Tensor) -> tuple[int, ...]:
    """Return the axes of a value, the one with the largest steps in memory first.

    Example:
        >>> import torch
        >>> order_of(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
        (0, 2, 3, 1)

    Args:
        value: the value.
    """
    strides = value.stride()
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def in_order_of(value: Any, order: tuple[int, ...] | None) -> Any:
    """Return a value with its axes in an order, copied only where they are in another."""
    if order is None or not isinstance(value, Tensor) or value.dim() != len(order) or order_of(value) == order:
        return value
    back = sorted(range(len(order)), key=order.__getitem__)
    return value.permute(order).contiguous().permute(back)


def in_usual_order(value: Any) -> Any:
    """Return a value as code that may see its strides expects it."""
    return value.contiguous() if isinstance(value, Tensor) and value.dim() > 2 else value


def orders_of(structure: Any, result: Any) -> Iterator[tuple[fx.Node, tuple[int, ...] | None]]:
    """Yield the node behind each result of a graph, with the order of its axes, None where there is none to keep.

    Args:
        structure: what the graph returns.
        result: what came out.
    """
    if isinstance(structure, fx.Node):
        keeps = isinstance(result, Tensor) and result.dim() > 2
        yield structure, order_of(result) if keeps else None
    elif isinstance(structure, dict):
        for key, inner in structure.items():
            yield from orders_of(inner, result[key])
    elif isinstance(structure, (tuple, list)):
        for inner, part in zip(structure, result, strict=True):
            yield from orders_of(inner, part)
