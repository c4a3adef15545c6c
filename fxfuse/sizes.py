"""The sizes of the axes of a value, as far as they are the same for every input."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse.rank_tables import keeps_size

if TYPE_CHECKING:
    from fxfuse.graph import Graph


def sizes(graph: Graph, node: fx.Node) -> tuple[int | None, ...]:
    """Return the sizes of all axes, None where they are not known; nothing where their number is not known."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return tuple(_number(size) for size in value.shape)
    rank = graph.rank(node)
    if rank is None or not rank.proven:
        return ()
    trailing = _trailing(graph, node)
    return (None,) * (rank.axes - len(trailing)) + trailing


def _number(size: object) -> int | None:
    return size if isinstance(size, int) else None  # a symbol is none


def _trailing(graph: Graph, node: fx.Node) -> tuple[int | None, ...]:
    """Return what the operation says of the last axes, or one before it of which it keeps the sizes."""
    current = node
    while True:
        module = graph.module(current)
        called: Any = type(module) if module is not None else current.target
        if isinstance(module, _ADAPTIVE) or called in _ADAPTIVE_FUNCTIONS:
            passed = current.args[1] if len(current.args) > 1 else current.kwargs.get("output_size")
            wanted = module.output_size if module is not None else passed
            listed = tuple(wanted) if isinstance(wanted, (list, tuple)) else (wanted,) * _axes(called)
            return tuple(size if isinstance(size, int) else None for size in listed)
        if called in (torch.mean, "mean"):
            return _after_mean(current)
        inputs = current.all_input_nodes[:1]
        if not inputs or not keeps_size(called):
            return ()
        current = inputs[0]


def _after_mean(node: fx.Node) -> tuple[int | None, ...]:
    """Return the ones that the mean along the last axes leaves."""
    dims, keep = (
        node.args[at] if len(node.args) > at else node.kwargs.get(name) for at, name in ((1, "dim"), (2, "keepdim"))
    )
    listed = sorted(d for d in dims if isinstance(d, int)) if isinstance(dims, (list, tuple)) else [dims]
    return (1,) * len(listed) if keep is True and listed == list(range(-len(listed), 0)) else ()


_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_ADAPTIVE_FUNCTIONS = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


def _axes(called: Any) -> int:
    """Return how many axes an adaptive pool has sizes for; a subclass has those of its base."""
    kinds = zip(_ADAPTIVE, _ADAPTIVE_FUNCTIONS, strict=True)
    found = (
        axes
        for axes, (module, function) in enumerate(kinds, start=1)
        if called is function or (isinstance(called, type) and issubclass(called, module))
    )
    return next(found)


def size_label(graph: Graph, node: fx.Node, axis: int) -> object:
    """Return what identifies a size: the number, the symbol, or whose axis it is."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        number = _number(value.shape[axis])
        return str(value.shape[axis]) if number is None else number
    if _reshaped_in_place(graph, node):
        return None
    known = sizes(graph, node)
    return known[axis] if known[axis] is not None else (_origin(graph, node), axis)


def asked_label(graph: Graph, size: object) -> object:
    """Return the same of a size that the model asks for, as ``x.shape[0]`` or ``x.size(0)``; None for the unknown."""
    if isinstance(size, int):
        return None if size < 0 else size
    if not isinstance(size, fx.Node):
        return None
    base, axis = _asked(size)
    known = sizes(graph, base) if base is not None else ()
    if base is None or not isinstance(axis, int) or not -len(known) <= axis < len(known):
        return None
    return size_label(graph, base, axis % len(known))


def _asked(size: fx.Node) -> tuple[fx.Node | None, object]:
    """Return whose size along which axis a node asks for."""
    if size.op == "call_method" and size.target == "size" and len(size.args) == 2:
        return size.all_input_nodes[0], size.args[1]
    source = size.args[0] if size.target is operator.getitem else None
    asks = isinstance(source, fx.Node) and source.target in (getattr, "size") and len(source.all_input_nodes) == 1
    if not asks or not isinstance(source, fx.Node):
        return None, None
    shape = source.target == "size" or source.args[1:] == ("shape",)
    return (source.all_input_nodes[0], size.args[1]) if shape else (None, None)


def _reshaped_in_place(graph: Graph, node: fx.Node) -> bool:
    """Whether the axes of a value, or of one of the same shape before it, are moved in place at some time."""
    values = {node, _origin(graph, node)}
    return any(user.target in _MOVING for value in values for user in value.users)


_MOVING = frozenset("transpose_ t_ swapaxes_ swapdims_ squeeze_ unsqueeze_ resize_ resize_as_ set_ as_strided_".split())


def _origin(graph: Graph, node: fx.Node) -> fx.Node:
    """Return the first value of the same shape."""
    current = node
    while True:
        module = graph.module(current)
        called: Any = type(module) if module is not None else current.target
        inputs = current.all_input_nodes[:1]
        if not inputs or current.op not in ("call_module", "call_function", "call_method") or not keeps_size(called):
            return current
        current = inputs[0]
