"""Identity and dropout in evaluation mode do nothing, so they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.graph.plan import Plan
from fxfuse.operators.noops import Noop

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.graph import Graph


def drop_noops(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv -> identity -> relu`` becomes ``conv -> relu``."""
    if not graph.plays(node, Noop):
        return None
    view = graph.view(node)
    if not isinstance(view, Noop) or not view.droppable:
        return None
    return Plan(bypass=((node, view.input),))
