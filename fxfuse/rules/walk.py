"""What both walks check: the kind of constants, their axis, and the number of axes of values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fxfuse.graph.guard import Guard
from fxfuse.graph.ranks import recorded_dtype
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.facts import Rank
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Write
    from fxfuse.operators.roles import AffineSource, Linear


class Walk:
    """One affine on its way from the node that applies it.

    Attributes:
        sources: the nodes that apply it; several that follow each other directly are one affine.
        ranks: the numbers of axes that it relies on.
        guard: the check of them that has to stay, None for no check.
        moved: True once the affine has passed an operation that may change the number of axes.
    """

    def __init__(self, graph: Graph, source: AffineSource) -> None:
        """Start at ``source``."""
        self.graph = graph
        self.sources = [source]
        self.guard: Guard | None = None
        self.ranks: list[Rank] = []
        self.moved = False

    def take(self, source: AffineSource) -> Affine:
        """Return the affine of a source, once everything it rests on is checked."""
        self.graph.require_changeable(source.node)
        affine = source.affine()
        if source.unproven_rank is not None:
            self.rely_on(source, source.unproven_rank)
        return affine

    def rely_on(self, source: AffineSource, rank: Rank) -> None:
        """Rely on a number of axes, and let a check of it stay in place of ``source``.

        Without checks (``guards=False``), only a number that example inputs have shown will do.
        """
        value = self.name(source.input)
        require_may_assume(self.graph, rank, source.input)
        require(not self.moved, Reason.UNKNOWN_SHAPE, value=value, detail="only usual, or only seen")
        self.ranks.append(rank)
        if self.graph.guards:
            self.guard = guard_of(source.node, self.ranks)

    def vector(self, view: Linear, affine: Affine, axis: int, channels: int) -> Affine:
        """Return the affine as two vectors along the channels, where the weights are."""
        vector = along_channels(self.graph, affine, axis, channels, view.node)
        device = view.weight.device
        there = vector.scale.device == device == vector.shift.device
        return vector if there else vector.rearrange(lambda t: t.to(device))  # scalars live on the CPU

    def require_same_kind(self, view: Linear) -> None:
        """Refuse constants on another device, or of a dtype that would change that of the result."""
        before, after = recorded_dtype(view.node), recorded_dtype(self.sources[0].node)
        # Under autocast a layer gives another dtype than its weights have.
        same = before is None or after is None or before == after
        require(same, Reason.PROMOTES, detail=f"{before} becomes {after}")
        for source in self.sources:
            require_constants_of_same_kind(self.graph, view, source)

    def require_strides_unused(self) -> None:
        """Refuse readers that depend on strides, which may change where a source made a new value."""
        for source in self.sources:
            reader = self.graph.layout.stride_reader(source.node)
            if reader is not None:
                raise Refusal(Reason.LAYOUT, value=self.name(source.input), users=self.name(reader))

    def with_sources(self, write: Write) -> Write:
        """Return the edit with the constants of the sources, which went into it."""
        return replace(write, sources=origins(self.graph, self.sources))

    def name(self, value: fx.Node) -> str:
        """Return a node for a sentence."""
        return self.graph.describe(value)


def origins(graph: Graph, sources: Iterable[AffineSource]) -> tuple[Tensor, ...]:
    """Return the weights that affines are made of: those of layers, and parameters that functions read.

    Not what was computed from them, or written in the code: there is another such tensor for each call.
    """
    found: list[Tensor] = []
    for source in sources:
        if source.call.module is not None:
            found += source.tensors
        for value in graph.source(source.node).all_input_nodes:
            found += (tensor for tensor in graph.constants.tensors(value) if isinstance(tensor, nn.Parameter))
    return tuple(found)


def require_same_kind(graph: Graph, layer: Linear, tensor: Tensor, *, promotes: bool) -> None:
    """Refuse a tensor on another device than a layer, or of a dtype that would change that of its result."""
    weight = layer.weight
    if tensor.device != weight.device:
        name = graph.describe(layer.node)
        raise Refusal(Reason.MIXED_DEVICE, value=name, device=tensor.device, other=weight.device)
    if tensor.dtype == weight.dtype:
        return
    promoted = torch.promote_types(tensor.dtype, weight.dtype)
    same = promoted == weight.dtype or not promotes
    require(same, Reason.PROMOTES, detail=f"{weight.dtype} with {tensor.dtype} gives {promoted}")


def require_constants_of_same_kind(graph: Graph, layer: Linear, source: AffineSource) -> None:
    """Refuse a source whose constants are of another kind; numbers and tensors without axes promote nothing."""
    for tensor in source.tensors:
        require_same_kind(graph, layer, tensor, promotes=source.promotes and tensor.ndim > 0)


def along_channels(graph: Graph, affine: Affine, axis: int, channels: int, node: fx.Node) -> Affine:
    """Return an affine of the value of a node as two vectors along its channels."""
    vector = affine.vector(axis, channels)
    if vector is None:
        detail = f"{channels} channels on axis {axis}, shape {tuple(affine.scale.shape)}"
        raise Refusal(Reason.NOT_PER_CHANNEL, value=graph.describe(node), detail=detail)
    return vector


def unproven_rank(graph: Graph, affine: Affine, axis: int, node: fx.Node) -> Rank | None:
    """Return the number of axes that a value needs at least for an affine not to enlarge it, if it is not proven.

    A constant with more axes than the value would give the result more axes as well, and is refused.
    """
    if affine.rank <= -axis:
        return None
    rank, name = graph.rank(node), graph.describe(node)
    if rank is None:
        raise Refusal(Reason.UNKNOWN_SHAPE, value=name, detail="not known")
    detail = f"it has {affine.rank} axes, the value {rank.axes}"
    require(affine.rank <= rank.axes, Reason.NOT_PER_CHANNEL, value=name, detail=detail)
    return None if rank.proven else rank._replace(axes=affine.rank, or_more=True)


def guard_of(node: fx.Node, ranks: Sequence[Rank]) -> Guard:
    """Return the one check, in place of a node, of all that is relied on: of a number, or else of the least number."""
    exact = [rank for rank in ranks if not rank.or_more]
    axes = max(rank.axes for rank in exact or ranks)
    return Guard(node, axes, any(rank.assumed for rank in ranks), or_more=not exact)


def require_may_assume(graph: Graph, rank: Rank, value: fx.Node) -> None:
    """Refuse a number of axes that is only usual, where no check may be left."""
    allowed = graph.guards or not rank.assumed
    detail = "only usual, and guards=False asks for a proof"
    require(allowed, Reason.UNKNOWN_SHAPE, value=graph.describe(value), detail=detail)
