"""Numbers computed from the sizes of values, while a forward is traced: ``max(math.ceil(h / 2) - k, 0)``."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

from torch import fx

from fxfuse.graph.registry import row_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.graph.registry import Operator

ORIGINALS = {"max": max, "min": min}
_WHOLE = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, max, min)
_ROUNDING = (math.ceil, math.floor)
_FRACTION = operator.truediv


def number_class(node: fx.Node) -> type | None:
    """Return int or float for a number that is computed from sizes alone, None for everything else."""
    if _is_size(node) or node.target in _ROUNDING:
        return int if _is_size(node) or _operands(node) else None
    if node.op != "call_function" or node.target not in (*_WHOLE, _FRACTION):
        return None
    classes = set(_operands(node))
    extreme = node.target in ORIGINALS.values()
    if not classes or (extreme and len(classes) > 1):  # then the values decide which of the two it is
        return None
    return float if node.target is _FRACTION or float in classes else int


def _operands(node: fx.Node) -> list[type]:
    """Return the classes of the arguments, nothing if one of them is no number."""
    found = [number_class(a) if isinstance(a, fx.Node) else type(a) for a in node.args]
    return [cls for cls in found if cls in (int, float)] if all(cls in (int, float) for cls in found) else []


def _is_size(node: fx.Node) -> bool:
    """Whether a node gives the size of a value along an axis."""
    if node.op == "call_method":
        return node.target == "size" and len(node.args) == 2
    if node.target is not operator.getitem or not isinstance(node.args[1], int):
        return False
    return isinstance(node.args[0], fx.Node) and _is_shape(node.args[0])


def _is_shape(node: fx.Node) -> bool:
    """Whether a node gives a shape, or a part of one."""
    if node.target is operator.getitem and isinstance(node.args[1], slice) and isinstance(node.args[0], fx.Node):
        return _is_shape(node.args[0])
    whole = node.op == "call_method" and node.target == "size" and len(node.args) == 1
    return whole or (node.target is getattr and node.args[1:] == ("shape",))


def gives_tensor(node: fx.Node, is_layer: Callable[[fx.Node], bool]) -> bool:
    """Whether a value is sure to be a tensor: an input, which a check guards, or what a known operation gives.

    Arithmetic gives one if one of its operands is one.
    """
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        if current.op == "call_module" and is_layer(current):
            return True
        row = row_at(current)
        arithmetic = row is not None and row.shape == "broadcast"
        if current.op in ("placeholder", "get_attr") or (not arithmetic and _is_tensor(current, row)):
            return True
        operands = current.all_input_nodes if arithmetic else []
        pending += [operand for operand in operands if operand not in seen]
        seen.update(operands)
    return False


def _is_tensor(node: fx.Node, row: Operator | None) -> bool:
    """Whether an operation gives a tensor, and no number or tuple."""
    if row is None or row.tuples or row.result in (None, "parts", "number"):
        return False
    return not row.passed(node).get("return_indices")
