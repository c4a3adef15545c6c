"""Whether a value is written into between two points of a graph, by itself or through memory that it shares."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from fxfuse.operator_table import OPERATORS

if TYPE_CHECKING:
    from fxfuse.graph import Graph

_PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd, nn.Sequential)
# Rows of the table of which the functions always make a new tensor.
_FRESH = frozenset(
    "mul add sub rsub div neg batch_norm instance_norm conv1d conv2d conv3d linear addmm mm convolution".split()
)


_COMPUTES = ("call_module", "call_function", "call_method")
_aten = torch.ops.aten
# What takes some strides alone, or tells what they are.
_TELLING_NAMES = frozenset(
    "view view_as as_strided stride is_contiguous storage_offset data_ptr resize_ set_ view_as_complex".split()
)
_TELLS = (
    *_TELLING_NAMES,
    *(torch.as_strided, torch.view_as_complex, torch.view_as_real),
    *(_aten.view.default, _aten.view.dtype, _aten.as_strided.default, _aten.view_as_complex.default),
)


# How the names of operations begin that fill a new tensor in the usual order.
_ANEW = ("conv", "linear", "matmul", "bmm", "mm", "addmm", "cat", "stack", "contiguous", "scaled_dot_product")


def writer_between(graph: Graph, value: fx.Node, start: fx.Node, ends: set[fx.Node]) -> fx.Node | None:
    """Return a node that may write into a value, behind ``start`` and before the last of ``ends``."""
    left, node, family = set(ends), start, None
    while left:
        node = node.next
        left.discard(node)
        written = node.all_input_nodes if _runs_user_code(graph, node) else graph.mutated(node)
        if left and written:
            family = _family(graph, value) if family is None else family
            if not family.isdisjoint(written):
                return node
    return None


def first_stickler(graph: Graph, value: fx.Node) -> fx.Node | None:
    """Return a reader that can tell how a value lies in memory; what a model returns may lie as it likes."""
    pending, seen = [value], {value}
    while pending:
        for user in pending.pop().users:
            if user.target in _TELLS or _asks_in_code(graph, user):
                return user
            if user not in seen and not _lies_anew(graph, user):
                seen.add(user)
                pending.append(user)
    return None


def first_writer(graph: Graph, value: fx.Node) -> fx.Node | None:
    """Return a node that may write into a value, or into what shares memory with it, at any time."""
    family = _family(graph, value)
    readers = dict.fromkeys(user for member in family for user in member.users)
    writers = (r for r in readers if _runs_user_code(graph, r) or not family.isdisjoint(graph.mutated(r)))
    return next(writers, None)


def _asks_in_code(graph: Graph, node: fx.Node) -> bool:
    """Whether code of the user's that runs at a node has a name in it of what takes some strides alone."""
    if not _runs_user_code(graph, node):
        return False
    module = graph.module(node)
    if module is None:
        functions = [node.target]
    else:
        classes = {cls for inner in module.modules() for cls in type(inner).__mro__}
        own = (cls for cls in classes if not cls.__module__.startswith("torch.nn."))
        functions = [member for cls in own for member in vars(cls).values()]
    codes = [getattr(inspect.unwrap(f), "__code__", None) for f in functions if callable(f)]
    return any(code is not None and not _TELLING_NAMES.isdisjoint(code.co_names) for code in codes)


def _lies_anew(graph: Graph, node: fx.Node) -> bool:
    """Whether a result lies in memory in an order of its own, and not in that of an input."""
    module = graph.module(node)
    called = type(module).__name__ if module is not None else getattr(node.target, "__name__", node.target)
    return str(called).lower().startswith(_ANEW)


def is_dense(graph: Graph, value: fx.Node, *, elementwise: bool) -> bool:
    """Whether a value lies in memory as what is computed from it: a layer made it, and what followed kept that.

    Args:
        graph: the graph.
        value: the value.
        elementwise: what is computed keeps the order of the axes in memory, so that any new tensor will do.
    """
    new = elementwise and value.op in _COMPUTES and not _may_alias(graph, value)
    return new or _lies_anew(graph, graph.sizes.of_same_shape(value)[-1])


def _family(graph: Graph, value: fx.Node) -> set[fx.Node]:
    """Return the values that may share memory with a value."""
    family, pending = {value}, [value]
    while pending:
        current = pending.pop()
        near = [user for user in current.users if _may_alias(graph, user)]
        near += current.all_input_nodes if _may_alias(graph, current) else []
        pending += [node for node in near if node not in family]
        family.update(near)
    return family


def _may_alias(graph: Graph, node: fx.Node) -> bool:
    """Whether the result of a node may share memory with one of its inputs."""
    module = graph.module(node)
    if module is not None:
        fresh = type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, _PASSING)
        return not fresh or bool(getattr(module, "inplace", False))
    row = OPERATORS.get(node.target) if node.op in ("call_function", "call_method") else None
    return row is None or row.name not in _FRESH


def _runs_user_code(graph: Graph, node: fx.Node) -> bool:
    """Whether code runs at a node that may write into its inputs, for all that is known."""
    module = graph.module(node)
    if module is not None:
        return not type(module).__module__.startswith(("torch.nn.", "fxfuse."))
    home = str(getattr(node.target, "__module__", "torch") or "torch")
    return node.op == "call_function" and not home.startswith(("torch", "_operator", "fxfuse", "builtins", "math"))
