"""Whether a value is written into between two points of a graph, by itself or through memory that it shares."""

from __future__ import annotations

import inspect
import itertools
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fxfuse.operator_table import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fxfuse.graph import Graph

_PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd, nn.Sequential)
# Rows of the table, and functions besides, that always make a new tensor.
_FRESH = frozenset(
    "mul add sub rsub div neg batch_norm instance_norm conv1d conv2d conv3d linear addmm mm convolution "
    "sin cos exp log abs sqrt rsqrt pow sigmoid tanh softmax matmul bmm sum cat stack".split()
)

_aten = torch.ops.aten
# What takes some strides alone, or tells what they are.
_TELLING_NAMES = frozenset(
    "view view_as view_as_complex as_strided as_strided_scatter stride is_contiguous storage_offset data_ptr resize_ "
    "set_".split()
)
_TELLS = (
    *_TELLING_NAMES,
    *(torch.as_strided, torch.as_strided_scatter, torch.view_as_complex, F.local_response_norm),
    *(_aten.view.default, _aten.view.dtype, _aten.as_strided.default, _aten.view_as_complex.default),
)


# How the names of operations begin whose results lie in the usual order, whatever they read.
_IN_ORDER = ("linear", "matmul", "bmm", "mm", "addmm", "contiguous", "scaled_dot_product")
# Layers that keep to the two orders that images have, as norms do.
_LAYERS = ("conv2d", "conv3d", "convtranspose2d", "convtranspose3d", "conv_transpose2d", "conv_transpose3d", *_IN_ORDER)
_ELEMENTWISE = ("add", "iadd", "sub", "isub", "mul", "imul", "relu", "gelu", "silu", "sigmoid", "hardswish", "dropout")
# And of those that give a view where the order allows it, else a copy.
_MAY_COPY = ("reshape", "flatten", "contiguous", "ravel", "to", "unflatten")


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
    """Return a reader that can tell how a value lies in memory; what a whole model returns may lie as it likes."""
    pending, seen = [value], {value}
    while pending:
        for user in pending.pop().users:
            leaves = user.op == "output" and bool(graph.prefix)  # code that is not traced reads it
            if leaves or user.target in _TELLS or _asks_in_code(graph, user):
                return user
            if user not in seen and not _begins(graph, user, _IN_ORDER):
                seen.add(user)
                pending.append(user)
    return None


def first_writer(graph: Graph, value: fx.Node, *, doubtful: bool = False) -> fx.Node | None:
    """Return a node that may write into a value, or into what shares memory with it, at any time.

    Args:
        graph: the graph.
        value: the value.
        doubtful: only where it hangs on how the value lies in memory, which results share it.
    """
    family = _family(graph, value)
    if doubtful and not any(_begins(graph, member, _MAY_COPY) for member in family):
        return None
    readers = dict.fromkeys(user for member in family for user in member.users)
    leaves = (r for r in readers if r.op == "output" and (graph.prefix or not doubtful))
    writers = (r for r in readers if _runs_user_code(graph, r) or not family.isdisjoint(graph.mutated(r)))
    return next(itertools.chain(writers, leaves), None)


def _asks_in_code(graph: Graph, node: fx.Node) -> bool:
    """Whether code of the user's that runs at a node has a name in it of what takes some strides alone."""
    module = graph.module(node)
    if isinstance(module, nn.LocalResponseNorm):
        return True
    if not _runs_user_code(graph, node):
        return False
    if module is None:
        functions = [node.target]
    else:
        classes = {cls for inner in module.modules() for cls in type(inner).__mro__}
        own = (cls for cls in classes if not cls.__module__.startswith(("torch.nn.", "builtins")))
        functions = [member for cls in own for member in vars(cls).values() if callable(member)]
    codes = list(_codes(functions))
    return not codes or any(not _TELLING_NAMES.isdisjoint(code.co_names) for code in codes)


def _codes(functions: list[Any]) -> Iterator[CodeType]:
    """Yield the code of functions, and of all that they hold and call by name."""
    seen: set[object] = set()
    pending = list(functions)
    while pending:
        function = inspect.unwrap(pending.pop())
        if isinstance(function, type) or function in seen:
            continue
        seen.add(function)
        code = function if isinstance(function, CodeType) else getattr(function, "__code__", None)
        if code is None:
            continue
        yield code
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]
        known = getattr(function, "__globals__", {})
        called = (known.get(name) for name in code.co_names)
        pending += [f for f in called if isinstance(f, FunctionType) and not f.__module__.startswith("torch.")]


def _begins(graph: Graph, node: fx.Node, words: tuple[str, ...]) -> bool:
    """Whether the name of the operation that a node calls begins with one of some words."""
    called = graph.called(node)
    return str(getattr(called, "__name__", called or "")).lower().startswith(words)


def is_dense(graph: Graph, value: fx.Node, *, elementwise: bool) -> bool:
    """Whether a value lies in memory as what is computed from it: a layer made it, and what followed kept that.

    Args:
        graph: the graph.
        value: the value.
        elementwise: what is computed keeps the order of the axes in memory, so that any new tensor will do.
    """
    if elementwise and graph.called(value) is not None and not _may_alias(graph, value):
        return True
    pending, seen = [value], {value}
    while pending:
        origin = graph.sizes.of_same_shape(pending.pop())[-1]
        if _begins(graph, origin, _LAYERS):
            continue
        # What is computed element by element of images in one of the two usual orders is in one of them too.
        operands = [o for o in origin.all_input_nodes if o not in graph.constants]
        if not operands or not _begins(graph, origin, _ELEMENTWISE):
            return False
        pending += [operand for operand in operands if operand not in seen]
        seen.update(operands)
    return True


def _family(graph: Graph, value: fx.Node) -> set[fx.Node]:
    """Return the values that may share memory with a value."""
    family, pending = {value}, [value]
    while pending:
        current = pending.pop()
        near = [user for user in current.users if current in _aliased(graph, user)]
        near += _aliased(graph, current)
        pending += [node for node in near if node not in family]
        family.update(near)
    return family


def _aliased(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """Return the inputs that the result of a node may share memory with."""
    if not _may_alias(graph, node):
        return []
    # What writes into an input returns that input.
    written = [] if _runs_user_code(graph, node) else graph.mutated(node)
    return written or node.all_input_nodes


def _may_alias(graph: Graph, node: fx.Node) -> bool:
    """Whether the result of a node may share memory with one of its inputs."""
    module = graph.module(node)
    if module is not None:
        fresh = type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, _PASSING)
        return not fresh or bool(getattr(module, "inplace", False))
    row = OPERATORS.get(node.target) if node.op in ("call_function", "call_method") else None
    target: Any = getattr(node.target, "overloadpacket", node.target)
    name = row.name if row is not None else getattr(target, "__name__", target)
    return name not in _FRESH


def _runs_user_code(graph: Graph, node: fx.Node) -> bool:
    """Whether code runs at a node that may write into its inputs, for all that is known."""
    module = graph.module(node)
    if module is not None:
        return not type(module).__module__.startswith(("torch.nn.", "fxfuse."))
    if node.op != "call_function":
        return False
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        # Only torch's own operators do what their schema says, and take any strides.
        return not str(getattr(node.target, "namespace", str(node.target))).startswith(_OWN_OPERATORS)
    home = str(getattr(node.target, "__module__", "torch") or "torch").partition(".")[0]
    return home not in ("torch", "_operator", "fxfuse", "builtins", "math")


_OWN_OPERATORS = ("aten", "prims", "quantized", "_c10d", "higher_order")
