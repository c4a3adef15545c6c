"""Whether a value is written into between two points of a graph, by itself or through memory that it shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from fxfuse.operator_table import OPERATORS

if TYPE_CHECKING:
    from fxfuse.graph import Graph

_PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd, nn.Sequential)
# Rows of the table of which the functions always make a new tensor.
_FRESH = frozenset(
    "mul add sub rsub div neg batch_norm instance_norm conv1d conv2d conv3d linear addmm mm convolution".split()
)


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
