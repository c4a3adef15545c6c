"""What all merges share: the layer that takes the others in, what is checked, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.aliases import writer_between
from fxfuse.graph.ranks import recorded_dtype
from fxfuse.operators.roles import AffineSource
from fxfuse.report.cost import Cost
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules.merging.route_filters import RouteFilters
from fxfuse.rules.walk import guard_of, origins, require_may_assume

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import fx

    from fxfuse.algebra.filters import Filter
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.guard import Guard
    from fxfuse.graph.plan import Write
    from fxfuse.operators.roles import Linear
    from fxfuse.rules.merging.routes import Route


class Merger:
    """A layer that does the work of others as well.

    Attributes:
        graph: the graph.
        host: the layer.
        filters: reads the others as filters.
    """

    def __init__(self, graph: Graph, host: Linear) -> None:
        """Merge into ``host``."""
        self.graph = graph
        self.host = host
        try:
            self.filters = RouteFilters(graph, host)
        except Misfit as misfit:
            raise self.refusal([host.node], misfit) from None

    def refusal(self, nodes: Sequence[fx.Node], misfit: Misfit) -> Refusal:
        """Return the refusal of operations that are no single filter."""
        return Refusal(Reason.MISALIGNED, value=self.graph.names(sorted(nodes)), detail=misfit)

    def require_no_growth(self, before: int, weights: int) -> None:
        """Refuse a merge with more multiply-adds than before, unless that is asked for.

        Args:
            before: the multiply-adds of all operations, as ``RouteFilters`` counts them.
            weights: those of the one layer for one position.
        """
        after = weights * (self.filters.positions or 1)
        per = "" if self.filters.positions else " for each position"
        detail = f"from {before:,} to {after:,} multiply-adds{per}"
        allowed = after <= before or self.graph.allow_growth
        require(allowed, Reason.WOULD_GROW, value=self.graph.describe(self.host.node), detail=detail)

    def write(self, merged: Filter, result: fx.Node, routes: Sequence[Route]) -> Write:
        """Return the edit that lets the host give ``result``, which some routes gave together."""
        host = self.host
        self.graph.require_changeable(host.node)
        before, after = recorded_dtype(result), recorded_dtype(host.node)
        require(before is None or after is None or before == after, Reason.PROMOTES, detail=f"{after} becomes {before}")
        try:
            write = host.with_filter(merged)
            same = merged.geometry == host.geometry() and merged.shape.weights == host.filter().shape.weights
        except Misfit as misfit:
            raise self.refusal([host.node], misfit) from None
        # Code that is kept, or is called later, may ask a layer for its sizes.
        require(same or not self.graph.keeps_code, Reason.OWN_FORWARD, value=self.graph.describe(host.node))
        trains = any(linear.weight.requires_grad for route in routes for linear in route.linears)
        affines = [view for route in routes for view in route.views if isinstance(view, AffineSource)]
        return replace(write, trains=trains, sources=origins(self.graph, affines))

    def costs(self, routes: Sequence[Route], merged: Filter, more: int) -> tuple[Cost, Cost]:
        """Return what routes cost, with ``more`` operations that add or join them, and what one filter costs."""
        before = Cost(None if self.filters.positions is None else 0)
        for route in routes:
            before += self.filters.cost(route)
        bias = merged.linear_map.bias
        parameters = merged.shape.weights + (0 if bias is None else bias.numel())
        adds = None if self.filters.positions is None else merged.shape.weights * self.filters.positions
        return before + Cost(None, self.filters.parameters(routes), more), Cost(adds, parameters, 1)

    def guard(self, node: fx.Node) -> Guard | None:
        """Return the check that has to stay in place of a node, None for no check."""
        ranks = [rank for rank, _ in self.filters.unproven]
        for rank, value in self.filters.unproven:
            require_may_assume(self.graph, rank, value)
        if not ranks or not self.graph.guards:
            return None
        return guard_of(node, ranks)

    def require_same_value(self, value: fx.Node, readers: Iterable[fx.Node]) -> None:
        """Refuse a value that is written into between its readers."""
        first, *others = sorted(set(readers))
        writer = writer_between(self.graph, value, first, set(others)) if others else None
        if writer is not None:
            raise Refusal(Reason.MUTATED, value=self.graph.describe(value), users=self.graph.describe(writer))

    def require_same_layout(self, routes: Sequence[Route], result: fx.Node) -> None:
        """Refuse readers that depend on the strides of the result, where the merged layer may give it others."""
        orders = {linear.weight.is_contiguous() for route in routes for linear in route.linears}
        layers = all(route.linears for route in routes) and len(orders) == 1
        if layers or self.graph.layout.is_dense(routes[0].start, elementwise=False):
            return
        reader = self.graph.layout.stride_reader(result, by_layer=True)
        if reader is not None:
            value = self.graph.describe(routes[0].start)
            raise Refusal(Reason.LAYOUT, value=value, users=self.graph.describe(reader))


def last_first(nodes: Iterable[fx.Node]) -> tuple[fx.Node, ...]:
    """Return nodes from the last to the first, each once."""
    return tuple(sorted(dict.fromkeys(nodes), reverse=True))
