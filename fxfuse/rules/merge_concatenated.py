"""Linear maps of one value behind one another: ``cat([conv(x), conv(x)])`` is one convolution of ``x``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.call import Merge, Plan
from fxfuse.filters import shape_of_stack, stack_of
from fxfuse.geometry import Misfit
from fxfuse.operators.joins import Concatenation
from fxfuse.operators.roles import Linear
from fxfuse.rules.merging import Merger, last_first
from fxfuse.rules.routes import Route, routes

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph import Graph


def merge_concatenated(graph: Graph, node: fx.Node) -> Plan | None:
    """``cat([conv(x), conv(x)])`` along the channels becomes one ``conv(x)`` with the outputs of both."""
    if not graph.plays(node, Concatenation) or node in graph.dead:
        return None
    view = graph.view(node)
    if not isinstance(view, Concatenation):
        return None
    found = [_layer(graph, value, node) for value in view.inputs]
    layers = [route.views[0] for route in found if route is not None]
    linears = [layer for layer in layers if isinstance(layer, Linear)]
    starts = {linear.input for linear in linears}
    if len(linears) < max(2, len(view.inputs)) or len(starts) > 1 or len({linear.node for linear in linears}) < 2:
        return None
    return _merge(graph, view, linears)


def _layer(graph: Graph, value: fx.Node, reader: fx.Node) -> Route | None:
    ways, _ = routes(graph, value, reader)
    return ways[1] if len(ways) > 1 and isinstance(ways[1].views[0], Linear) else None


def _merge(graph: Graph, view: Concatenation, linears: list[Linear]) -> Plan | None:
    merger = Merger(graph, max(linears, key=lambda linear: linear.weight.numel()))
    if not _is_along_channels(merger, view):
        return None
    host, nodes = merger.host.node, [linear.node for linear in linears]
    ways = [Route(linear.input, (linear,)) for linear in linears]
    try:
        filters = [merger.pieces.filter(way) for way in ways]
        merger.require_no_growth(
            sum(f.shape.weights for f in filters), shape_of_stack([f.shape for f in filters]).weights
        )
        merged = stack_of(filters)
    except Misfit as misfit:
        raise merger.refusal(nodes, misfit) from None
    merger.require_same_value(linears[0].input, nodes)
    before, after = merger.costs(ways, merged, 1)
    others = last_first(node for node in nodes if node is not host)
    write = merger.write(merged, view.node)
    bypass, guard = ((view.node, host),), merger.guard()
    merge = Merge(linears[0].input, view.node, others, before, after)
    return Plan((write,), bypass, guard, merger.assumed, onwards=True, dropped=others, merge=merge)


def _is_along_channels(merger: Merger, view: Concatenation) -> bool:
    """Whether values are put together along their channels, if need be once the number of axes is checked."""
    axis, rank = view.call.get("dim", 0), merger.graph.rank(view.node)
    if isinstance(axis, int) and axis >= 0 and rank is not None:
        axis -= rank.axes
        if not rank.proven:
            merger.pieces.unproven = rank, view.node
    return bool(axis == merger.host.output_axis)
