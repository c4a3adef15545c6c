"""Whether a value is written into between two points of a graph, by itself or through memory that it shares."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import fx

from fxfuse.graph.uses import asks_shape
from fxfuse.modules.lookup import CONTAINERS
from fxfuse.modules.origin import is_torchs_layer, package_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from fxfuse.graph.facts import Facts


def writer_between(graph: Facts, value: fx.Node, start: fx.Node, ends: set[fx.Node]) -> fx.Node | None:
    """Return a node that may write into a value, behind ``start`` and before the last of ``ends``."""
    left, node, family = set(ends), start, None
    while left:
        node = node.next
        left.discard(node)
        written = node.all_input_nodes if runs_user_code(graph, node) else graph.mutated(node)
        if left and written:
            family = family_of(graph, value) if family is None else family
            if not family.isdisjoint(written):
                return node
    return None


def first_writer(graph: Facts, value: fx.Node, *, doubtful: bool = False) -> fx.Node | None:
    """Return a node that may write into a value, or into what shares memory with it, at any time.

    Args:
        graph: the graph.
        value: the value.
        doubtful: count only writers that matter if an operation like ``reshape`` returned a view.
    """
    family = family_of(graph, value)
    rows = map(graph.row, family)
    if doubtful and not any(row is not None and row.result == "maybe view" for row in rows):
        return None
    readers = dict.fromkeys(user for member in family for user in member.users)
    leaves = (r for r in readers if r.op == "output" and (graph.prefix or not doubtful))
    writers = (r for r in readers if runs_user_code(graph, r) or not family.isdisjoint(graph.mutated(r)))
    return next(itertools.chain(writers, leaves), None)


def family_of(graph: Facts, value: fx.Node, without: Collection[fx.Node] = ()) -> set[fx.Node]:
    """Return the values that may share memory with a value, but for some, and for what shares it with these alone."""
    family, pending = {value}, [value]
    while pending:
        current = pending.pop()
        near = [user for user in current.users if current in _aliased(graph, user)] + _aliased(graph, current)
        pending += [node for node in near if node not in family and node not in without]
        family.update(pending)
    return family


def _aliased(graph: Facts, node: fx.Node) -> list[fx.Node]:
    """Return the inputs that the result of a node may share memory with."""
    if asks_shape(node) or not may_alias(graph, node):
        return []
    # What writes into an input returns that input.
    written = [] if runs_user_code(graph, node) else graph.mutated(node)
    return written or node.all_input_nodes


def may_alias(graph: Facts, node: fx.Node) -> bool:
    """Whether the result of a node may share memory with one of its inputs."""
    row = graph.row(node)
    if row is not None and row.result is not None:
        return row.result not in ("new", "number") or bool(graph.mutated(node))
    module = graph.module(node)
    torchs = module is not None and is_torchs_layer(module)
    return not torchs or isinstance(module, CONTAINERS)  # torch's other layers make new tensors


def runs_user_code(graph: Facts, node: fx.Node) -> bool:
    """Whether code runs at a node that may write into its inputs, for all that is known."""
    module = graph.module(node)
    if module is not None:
        return package_of(module) not in ("torch", "fxfuse")
    if node.op != "call_function":
        return False
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        # Only torch's own operators do what their schema says, and take any strides.
        return str(node.target).partition(".")[0] not in _OWN_OPERATORS
    return package_of(node.target) not in ("torch", "_operator", "fxfuse", "builtins", "math")


_OWN_OPERATORS = ("aten", "prims", "quantized", "_c10d", "higher_order")
