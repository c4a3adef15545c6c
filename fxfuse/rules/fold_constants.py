"""A weight that is computed from parameters alone is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, fx

from fxfuse.call import Plan, Write
from fxfuse.operators.roles import Linear

if TYPE_CHECKING:
    from fxfuse.graph import Graph


def fold_constants(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv(x, standardised(w))`` becomes ``conv(x, w')`` with ``w' = standardised(w)``."""
    if not graph.plays(node, Linear):
        return None
    view = graph.view(node)
    if view is None:
        return None
    computed: dict[str, Tensor] = {}
    for name in ("weight", "bias"):
        value = view.call.arguments.get(name)
        if isinstance(value, fx.Node) and value.op != "get_attr" and value in graph.constants:
            computed[name] = graph.constants.value(value, name=name, of=view.call.path).detach()
    return Plan(writes=(Write(view.call, computed),)) if computed else None
