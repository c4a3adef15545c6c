"""Linear maps of one value behind one another: ``cat([conv(x), conv(x)])`` is one convolution of ``x``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fxfuse.algebra.filters import shape_of_stack, stack_of
from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.plan import Merge
from fxfuse.operators.joins import Concatenation
from fxfuse.operators.roles import Linear
from fxfuse.rules.merging.merger import Merger, last_first
from fxfuse.rules.merging.routes import Route, routes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


def merge_concatenated(graph: Graph, node: fx.Node) -> Plan | None:
    """``cat([conv(x), conv(x)])`` along the channels becomes one ``conv(x)`` with the outputs of both."""
    if not graph.plays(node, Concatenation) or node in graph.dead:
        return None
    view = graph.view(node)
    found = _layers(graph, view) if isinstance(view, Concatenation) else None
    return None if found is None else _merge(graph, found)


class _Layers(NamedTuple):
    """Layers of one value, all that a concatenation puts behind one another.

    Attributes:
        whole: the outermost concatenation.
        linears: the layers, in order.
        inner: the concatenations between them and the whole, each with the one that reads it.
        readers: the concatenation that reads each layer.
    """

    whole: Concatenation
    linears: list[Linear]
    inner: dict[fx.Node, fx.Node]
    readers: dict[fx.Node, fx.Node]

    def upwards(self, node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
        """Yield the concatenations above a layer, each with what it reads on the way."""
        reader: fx.Node | None = self.readers[node]
        while reader is not None:
            yield reader, node
            node, reader = reader, self.inner.get(reader)


def _layers(graph: Graph, whole: Concatenation) -> _Layers | None:
    """Return the layers behind a concatenation, through those before it, if there is nothing else."""
    found = _Layers(whole, [], {}, {})
    pending = [(value, whole.node) for value in whole.inputs]
    while pending:
        value, reader = pending.pop()
        inner = graph.view(value) if graph.plays(value, Concatenation) else None
        if isinstance(inner, Concatenation):
            same = inner.call.get("dim", 0) == whole.call.get("dim", 0)
            if not same or graph.users(value) != [reader] or len(value.users) > 1:
                return None
            found.inner[value] = reader
            pending += [(part, value) for part in inner.inputs]
            continue
        layer = _layer(graph, value, reader)
        if layer is None or (found.linears and layer.input is not found.linears[0].input):
            return None
        found.linears.append(layer)
        found.readers[value] = reader
    found.linears.reverse()
    return found if len(found.readers) > 1 else None


def _layer(graph: Graph, value: fx.Node, reader: fx.Node) -> Linear | None:
    if not graph.plays(value, Linear):
        return None
    ways, _ = routes(graph, value, reader)
    view = ways[1].views[0] if len(ways) > 1 else None
    return view if isinstance(view, Linear) and view.input in view.inputs else None


def _merge(graph: Graph, found: _Layers) -> Merge | None:
    linears, whole = found.linears, found.whole
    merger = Merger(graph, max(linears, key=lambda linear: linear.weight.numel()))
    if not _is_along_channels(merger, whole):
        return None
    host, nodes = merger.host.node, [linear.node for linear in linears]
    ways = [Route(linear.input, (linear,)) for linear in linears]
    try:
        filters = [merger.filters.filter(way) for way in ways]
        shape = shape_of_stack([f.shape for f in filters])
        merger.require_no_growth(sum(map(merger.filters.multiply_adds, ways)), shape.weights)
        merged = stack_of(filters)
    except Misfit as misfit:
        raise merger.refusal(nodes, misfit) from None
    merger.require_same_value(linears[0].input, nodes)
    before, after = merger.costs(ways, merged, 1 + len(found.inner))
    bypass = tuple(found.upwards(host))[::-1]
    gone = {node for node, _ in bypass}
    return Merge(
        (merger.write(merged, whole.node, ways),),
        bypass,
        merger.guard(bypass[-1][0]),
        start=linears[0].input,
        result=whole.node,
        merged=tuple(sorted({node for node in nodes if node is not host})),
        before=before,
        after=after,
        dropped=last_first(node for node in (*nodes, *found.inner) if node is not host and node not in gone),
    )


def _is_along_channels(merger: Merger, view: Concatenation) -> bool:
    """Whether values are put together along their channels, if need be once the number of axes is checked."""
    axis, rank = view.call.get("dim", 0), merger.graph.rank(view.node)
    if isinstance(axis, int) and axis >= 0 and rank is not None:
        axis -= rank.axes
        if not rank.proven:
            merger.filters.unproven.append((rank, view.node))
    return bool(axis == merger.host.output_axis)
