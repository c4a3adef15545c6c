"""A weight that is computed from parameters alone is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.graph.plan import Plan, Write
from fxfuse.operators.roles import Linear

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.graph import Graph


def fold_constants(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv(x, standardised(w))`` becomes ``conv(x, w')`` with ``w' = standardised(w)``."""
    view = None if node.op == "call_module" else graph.view(node)  # the weights of a module are parameters
    if not isinstance(view, Linear):
        return None
    values = view.computed()
    if not values:
        return None
    graph.require_changeable(node)
    path, constants = view.call.path, graph.constants
    computed = {name: constants.value(value, name=name, of=path).detach() for name, value in values.items()}
    return Plan(writes=(Write(view.call, computed),))
