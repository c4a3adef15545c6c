"""The operations on routes as filters, and what they cost."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

from fxfuse.algebra.affine import Affine
from fxfuse.algebra.filters import Filter, Shape, chain_of, shape_of_chain
from fxfuse.algebra.geometry import Axis, Geometry, fits
from fxfuse.graph.ranks import recorded_dtype, recorded_value
from fxfuse.operators.noops import Noop
from fxfuse.operators.pools import Pool
from fxfuse.operators.roles import AffineSource, Linear
from fxfuse.report.cost import Cost
from fxfuse.report.reasons import Reason, require
from fxfuse.rules.walk import along_channels, require_constants_of_same_kind, require_same_kind, unproven_rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import fx

    from fxfuse.graph.facts import NodeView, Rank
    from fxfuse.graph.graph import Graph
    from fxfuse.rules.merging.routes import Route


class RouteFilters:
    """Reads the operations of some routes from one value as filters.

    Attributes:
        channels: the channels of that value.
        spatial: the number of its spatial axes.
        unproven: the numbers of axes that a filter relies on and that are not proven, each with its value.
    """

    def __init__(self, graph: Graph, host: Linear) -> None:
        """Read filters that go together with ``host``, which reads the value."""
        self.graph = graph
        self.host = host
        self.channels = host.linear_map().in_channels
        self.spatial = len(host.geometry().axes)
        self.axis = host.output_axis
        self.unproven: list[tuple[Rank, fx.Node]] = []

    def along(self, route: Route) -> Iterator[tuple[NodeView, Filter]]:
        """Yield the operations of a route that do something, from the first to the last, each with its filter.

        Raises:
            Misfit: if an operation is no filter.
        """
        channels = self.channels
        for view in reversed(route.views):
            if not isinstance(view, Noop):
                one = self.one(view, channels)
                channels = one.shape.out_channels
                yield view, one

    def shape(self, route: Route) -> Shape:
        """Return the shape of all operations of a route together.

        Raises:
            Misfit: if they are no single filter at the border.
        """
        shape = Shape(self.channels, self.channels, self.channels, Geometry((Axis(),) * self.spatial))
        for _, one in self.along(route):
            shape = shape_of_chain(shape, one.shape)
        return shape

    def filter(self, route: Route) -> Filter:
        """Return all operations of a route as one filter.

        Raises:
            Misfit: if they are none at the border.
        """
        found = [one for _, one in self.along(route)]
        if found:
            return functools.reduce(chain_of, found)
        ones = torch.ones(self.channels, dtype=torch.float64, device="cpu")
        return Filter.diagonal(Affine(ones, torch.zeros_like(ones), shifts=False), self.spatial)

    def one(self, view: NodeView, channels: int) -> Filter:
        """Return an operation that reads a value of so many channels.

        Raises:
            Misfit: if it is no filter.
        """
        self.graph.require_changeable(view.node)
        if isinstance(view, Linear):
            self._require_like_host(view)
            return view.filter()
        if isinstance(view, Pool):
            fits(view.spatial == self.spatial, f"{view.call.path} pools another number of axes")
            return view.filter(channels)
        assert isinstance(view, AffineSource)  # noqa: S101 - nothing else is on a route
        return Filter.diagonal(self.vector(view, channels), self.spatial)

    def multiply_adds(self, route: Route) -> int:
        """Return the multiply-adds of a route: all, or where sizes are not known those for one position of its result.

        Raises:
            Misfit: if an operation on it is no filter.
        """
        known = self.cost(route).multiply_adds
        if known is not None:
            return known
        total = 0
        for _, one in self.along(route):
            # Operations before a stride have that many times the positions.
            total = total * one.shape.geometry.steps + one.shape.weights
        return total * (self.positions or 1)

    def cost(self, route: Route) -> Cost:
        """Return the multiply-adds and kernels of a route."""
        found = [(self._positions(view), one.shape.weights) for view, one in self.along(route)]
        known = self.positions is not None and all(positions is not None for positions, _ in found)
        adds = sum((positions or 0) * weights for positions, weights in found)
        return Cost(adds if known else None, 0, len(found))

    def parameters(self, routes: Sequence[Route]) -> int:
        """Return the elements of weights and statistics that only operations on these routes read."""
        views = [view for route in routes for view in route.views if not isinstance(view, Noop)]
        tensors = {id(tensor): (tensor, view.node) for view in views for tensor in _tensors(view)}
        ours = self.graph.with_constants(view.node for view in views)
        read = ((t, self.graph.readers.others(t, node, apart_from=ours)) for t, node in tensors.values())
        return sum(tensor.numel() for tensor, others in read if not others)

    @functools.cached_property
    def positions(self) -> int | None:
        """How many positions the result has for one element of the batch; None if that is not known."""
        return self._positions(self.host)

    def _positions(self, view: NodeView) -> int | None:
        if isinstance(view, Linear) and view.geometry().fixed is not None:
            return None  # a transposed convolution reads another number of taps for each
        value = recorded_value(view.node)  # a traced graph knows the channels of a value, and rarely all sizes
        sizes = [] if value is None else list(value.shape)
        kept = [size for axis, size in enumerate(sizes) if axis > 0 and axis - len(sizes) != self.axis]
        known = bool(sizes) and all(isinstance(size, int) for size in kept)
        return math.prod(kept) if known else None

    def vector(self, source: AffineSource, channels: int) -> Affine:
        """Return the affine of a source, along the channels."""
        affine = source.affine()
        require_constants_of_same_kind(self.graph, self.host, source)
        if source.unproven_rank is not None:
            self.unproven.append((source.unproven_rank, source.input))
        return self.along_channels(affine, channels, source.node)

    def along_channels(self, affine: Affine, channels: int, node: fx.Node) -> Affine:
        """Return an affine of a value as two vectors along its channels."""
        vector = along_channels(self.graph, affine, self.axis, channels, node)
        rank = unproven_rank(self.graph, affine, self.axis, node)
        if rank is not None:
            self.unproven.append((rank, node))
        return vector

    def _require_like_host(self, view: Linear) -> None:
        same = view.output_axis == self.axis and view.input_axis == self.host.input_axis
        fits(same, f"{view.call.path} has its channels on another axis")
        # A layer in training mode must stay as it is.
        module = view.call.module
        require(module is None or not module.training, Reason.TRAINING)
        require_same_kind(self.graph, self.host, view.weight, promotes=True)
        before, after = recorded_dtype(view.node), recorded_dtype(self.host.node)
        require(before is None or after is None or before == after, Reason.PROMOTES, detail=f"{before} and {after}")


def _tensors(view: NodeView) -> list[torch.Tensor]:
    if isinstance(view, Linear):
        found = [view.weight, view.call.tensor("bias")]
        return [tensor for tensor in found if tensor is not None]
    return list(view.tensors) if isinstance(view, AffineSource) else []
