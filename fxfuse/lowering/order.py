"""The order of the axes in memory: what a result has in the fused model, it has in the lowered one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Iterator


def order_of(value: Tensor) -> tuple[int, ...]:
    """Return the axes of a value, the one with the largest steps in memory first: (0, 2, 3, 1) with channels last."""
    strides = value.stride()
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def in_order_of(value: Any, order: tuple[int, ...] | None) -> Any:
    """Return a value with its axes in an order, copied only where they are in another."""
    if order is None or not isinstance(value, Tensor) or value.dim() != len(order) or order_of(value) == order:
        return value
    return value.permute(order).contiguous().permute(sorted(range(len(order)), key=order.__getitem__))


def in_usual_order(value: Any) -> Any:
    """Return a value as code that may see its strides expects it."""
    return value.contiguous() if isinstance(value, Tensor) and value.dim() > 2 else value


def orders_of(structure: Any, result: Any) -> Iterator[tuple[fx.Node, tuple[int, ...] | None]]:
    """Yield the nodes in what a graph returns, each with the order of its axes in what came out."""
    if isinstance(structure, fx.Node):
        yield structure, order_of(result) if isinstance(result, Tensor) and result.dim() > 2 else None
    elif isinstance(structure, (dict, tuple, list)):
        keys = structure if isinstance(structure, dict) else range(len(structure))
        for key in keys:
            yield from orders_of(structure[key], result[key])
