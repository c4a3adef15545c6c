"""What a node reads, and whether it sees values at all."""

from __future__ import annotations

from typing import Any

from torch import fx

from fxfuse.graph.registry import row_at


def uses(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node reads, once for each time it reads them: ``cat([y, y])`` reads y twice."""
    row = row_at(node)
    if row is None or row.like is None:
        return nodes_in(node.args, node.kwargs)
    return nodes_in([value for name, value in row.passed(node).items() if name != row.like])


def first_operand(node: fx.Node) -> fx.Node | None:
    """Return the value that a node transforms: what is passed first, or as ``input``."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def nodes_in(*arguments: Any) -> list[fx.Node]:
    """Return the nodes among some arguments, and in the lists and dictionaries among them."""
    found: list[fx.Node] = []
    pending: list[Any] = list(arguments)
    while pending:
        item = pending.pop()
        if isinstance(item, fx.Node):
            found.append(item)
        elif isinstance(item, slice):
            pending += [item.start, item.stop, item.step]
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (tuple, list)):
            pending += item
    return found


def asks_shape(node: fx.Node) -> bool:
    """Whether a node sees no values, only shape, dtype or device: an affine leaves the answer alone."""
    return _asks(node, ("shape", "rank"), ("shape", "ndim", "dtype", "device", "is_cuda"))


def asks_rank(node: fx.Node) -> bool:
    """Whether a node only sees how many axes a value has."""
    return _asks(node, ("rank",), ("ndim",))


def _asks(node: fx.Node, answers: tuple[str, ...], attributes: tuple[str, ...]) -> bool:
    row = row_at(node)
    if row is not None:
        # A check returns its input, which somebody may read.
        return row.asks in answers and not (row.result == "view" and node.users)
    return node.op == "call_function" and node.target is getattr and node.args[1] in attributes
