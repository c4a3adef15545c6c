"""Linear maps one after another: ``conv3x3(conv1x1(x))`` is one convolution of ``x``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.algebra.filters import chain_of, shape_of_chain
from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.plan import Merge
from fxfuse.operators.noops import Noop
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.rules.merging.merger import Merger
from fxfuse.rules.merging.routes import Route, routes

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.facts import NodeView
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


def merge_chain(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv3x3(conv1x1(x))`` becomes ``conv3x3(x)``, and ``linear(linear(x))`` becomes ``linear(x)``."""
    if not graph.plays(node, Linear) or node in graph.dead:
        return None
    try:
        second = graph.view(node)
    except Refusal:
        if any(graph.plays(value, Linear) for value in node.all_input_nodes):
            raise
        return None  # whatever forbids to touch it, there is nothing to merge
    between = _between(graph, second) if isinstance(second, Linear) else []
    first = between[-1] if between else None
    return _merge(graph, first, second, between) if isinstance(first, Linear) and isinstance(second, Linear) else None


def _between(graph: Graph, second: Linear) -> list[NodeView]:
    """Return what stands before a layer, from the last, up to the first operation that does something."""
    found: list[NodeView] = []
    ways, obstacle = routes(graph, second.input, second.node)
    if obstacle is not None and obstacle.refusal.reason is Reason.HOOKED and len(ways) == 1:
        raise obstacle.refusal
    for route in ways[1:]:
        found.append(route.views[-1])
        if not isinstance(found[-1], Noop):
            break
    return found


def _merge(graph: Graph, first: Linear, second: Linear, between: list[NodeView]) -> Merge:
    try:
        # The geometry is that of the larger one, which stays.
        host = first if second.geometry().pointwise else second
        merger = Merger(graph, host)
        route = Route(first.input, (second, *between))
        one, two = merger.filters.one(first, 0), merger.filters.one(second, 0)
        merger.require_no_growth(merger.filters.multiply_adds(route), shape_of_chain(one.shape, two.shape).weights)
        merged = chain_of(one, two)
    except Misfit as misfit:
        detail = graph.names([first.node, second.node])
        raise Refusal(Reason.MISALIGNED, value=detail, detail=misfit) from None
    merger.require_same_value(first.input, [first.node, second.node])
    before, after = merger.costs([route], merged, 0)
    inner = tuple((view.node, view.input) for view in between)
    bypass = inner if host is second else ((second.node, second.input), *inner[:-1])
    gone = first.node if host is second else second.node
    writes, result = (merger.write(merged, second.node, [route]),), second.node
    return Merge(writes, bypass, start=first.input, result=result, merged=(gone,), before=before, after=after)
