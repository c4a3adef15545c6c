"""Whether a value is written into between two points of a graph, by itself or through memory that it shares."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from fxfuse.graph.registry import OPERATORS

if TYPE_CHECKING:
    from fxfuse.graph.facts import Facts

_PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd, nn.Sequential)
# Rows of the table, and functions besides, that always make a new tensor.
_FRESH = frozenset(
    "mul add sub rsub div neg batch_norm instance_norm conv1d conv2d conv3d linear addmm mm convolution "
    "sin cos exp log abs sqrt rsqrt pow sigmoid tanh softmax matmul bmm sum cat stack".split()
)

# And of those that give a view where the order allows it, else a copy.
_MAY_COPY = ("reshape", "flatten", "contiguous", "ravel", "to", "unflatten")


def writer_between(graph: Facts, value: fx.Node, start: fx.Node, ends: set[fx.Node]) -> fx.Node | None:
    """Return a node that may write into a value, behind ``start`` and before the last of ``ends``."""
    left, node, family = set(ends), start, None
    while left:
        node = node.next
        left.discard(node)
        written = node.all_input_nodes if runs_user_code(graph, node) else graph.mutated(node)
        if left and written:
            family = _family(graph, value) if family is None else family
            if not family.isdisjoint(written):
                return node
    return None


def first_writer(graph: Facts, value: fx.Node, *, doubtful: bool = False) -> fx.Node | None:
    """Return a node that may write into a value, or into what shares memory with it, at any time.

    Args:
        graph: the graph.
        value: the value.
        doubtful: only where it hangs on how the value lies in memory, which results share it.
    """
    family = _family(graph, value)
    if doubtful and not any(begins(graph, member, _MAY_COPY) for member in family):
        return None
    readers = dict.fromkeys(user for member in family for user in member.users)
    leaves = (r for r in readers if r.op == "output" and (graph.prefix or not doubtful))
    writers = (r for r in readers if runs_user_code(graph, r) or not family.isdisjoint(graph.mutated(r)))
    return next(itertools.chain(writers, leaves), None)


def begins(graph: Facts, node: fx.Node, words: tuple[str, ...]) -> bool:
    """Whether the name of the operation that a node calls begins with one of some words."""
    called = graph.called(node)
    return str(getattr(called, "__name__", called or "")).lower().startswith(words)


def _family(graph: Facts, value: fx.Node) -> set[fx.Node]:
    """Return the values that may share memory with a value."""
    family, pending = {value}, [value]
    while pending:
        current = pending.pop()
        near = [user for user in current.users if current in _aliased(graph, user)]
        near += _aliased(graph, current)
        pending += [node for node in near if node not in family]
        family.update(near)
    return family


def _aliased(graph: Facts, node: fx.Node) -> list[fx.Node]:
    """Return the inputs that the result of a node may share memory with."""
    if not may_alias(graph, node):
        return []
    # What writes into an input returns that input.
    written = [] if runs_user_code(graph, node) else graph.mutated(node)
    return written or node.all_input_nodes


def may_alias(graph: Facts, node: fx.Node) -> bool:
    """Whether the result of a node may share memory with one of its inputs."""
    module = graph.module(node)
    if module is not None:
        fresh = type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, _PASSING)
        return not fresh or bool(getattr(module, "inplace", False))
    row = OPERATORS.get(node.target) if node.op in ("call_function", "call_method") else None
    target: Any = getattr(node.target, "overloadpacket", node.target)
    name = row.name if row is not None else getattr(target, "__name__", target)
    return name not in _FRESH


def runs_user_code(graph: Facts, node: fx.Node) -> bool:
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
