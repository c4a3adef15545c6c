"""Layers that read one value become one layer and slices of its result; not among the default rules."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fxfuse.algebra.filters import stack_of
from fxfuse.algebra.geometry import Geometry, Misfit
from fxfuse.graph.aliases import first_writer
from fxfuse.graph.plan import Merge, ValueSlice
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.rules.merging.merger import Merger, last_first
from fxfuse.rules.merging.routes import Route

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


def stack_parallel(graph: Graph, node: fx.Node) -> Plan | None:
    """``q(x), k(x), v(x)`` become one layer and three slices of its result.

    It saves kernels and no multiply-adds.  The slices are not contiguous, so that some readers copy them: whether it
    pays depends on the model and the machine, and it must be asked for.
    """
    if graph.keeps_code or not graph.plays(node, Linear) or node in graph.dead:
        return None
    if any(user < node and graph.plays(user, Linear) for value in node.all_input_nodes[:1] for user in value.users):
        return None  # the first one of them is asked
    first = graph.view(node)
    layers = _alike(graph, first) if isinstance(first, Linear) else []
    return _stacked(graph, layers) if len(layers) > 1 and layers[0].node is node else None


def _alike(graph: Graph, first: Linear) -> list[Linear]:
    """Return the layers that read the same value with the same geometry and groups of one, in order."""
    found: dict[int, Linear] = {}  # by the weight: what is called twice is not stacked twice
    kind = _kind(first)
    for user in sorted(set(graph.users(first.input))):
        try:
            view = graph.view(user) if graph.plays(user, Linear) else None
            alike = isinstance(view, Linear) and view.input is first.input and _kind(view) == kind
        except (Refusal, Misfit):
            continue  # a hook, say: that layer stays by itself
        if alike and isinstance(view, Linear):
            found.setdefault(id(view.weight), view)
    return list(found.values()) if kind[1] == 1 else []


def _kind(view: Linear) -> tuple[Geometry, int, int]:
    return view.geometry(), view.linear_map().stored.shape[0], view.output_axis


def _stacked(graph: Graph, layers: list[Linear]) -> Merge:
    merger, nodes = Merger(graph, layers[0]), [layer.node for layer in layers]
    for layer in layers:
        reader = graph.layout.stride_reader(layer.node)
        if reader is not None:
            raise Refusal(Reason.LAYOUT, value=graph.describe(layer.node), users=graph.describe(reader))
        writer = first_writer(graph, layer.node, doubtful=True)
        if writer is not None:
            raise Refusal(Reason.MUTATED, value=graph.describe(layer.node), users=graph.describe(writer))
    merger.require_same_value(layers[0].input, nodes)
    ways = [Route(layer.input, (layer,)) for layer in layers]
    filters = [merger.filters.filter(way) for way in ways]
    merged = stack_of(filters)
    before, after = merger.costs(ways, merged, 0)
    lengths = [one.shape.out_channels for one in filters]
    starts = itertools.accumulate(lengths[:-1], initial=0)
    axis = layers[0].output_axis
    return Merge(
        (merger.write(merged, nodes[0], ways),),
        start=layers[0].input,
        result=nodes[0],
        merged=tuple(nodes[1:]),
        before=before,
        after=after,
        dropped=last_first(nodes[1:]),
        slices=tuple(ValueSlice(n, axis, *place) for n, *place in zip(nodes, starts, lengths, strict=True)),
    )
