"""What both walks check: constants of one kind, along the channels, and nothing that rests on an unproven rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fxfuse.reasons import Reason, Refusal, require
from fxfuse.shapes import recorded_dtype

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.affine import Affine
    from fxfuse.graph import Graph
    from fxfuse.operators.roles import AffineSource, Linear
    from fxfuse.shapes import Rank


class Walk:
    """One affine on its way from the node that applies it.

    Attributes:
        sources: the nodes that apply it; several that follow each other directly are one affine.
        guard: the number of axes that has to be checked from now on, None for no check.
        guarded: the source whose input it is the number of.
        moved: the affine has passed an operation that may change the number of axes.
        assumed: that number is only usual.
    """

    def __init__(self, graph: Graph, source: AffineSource) -> None:
        """Start at ``source``."""
        self.graph = graph
        self.sources = [source]
        self.guard: int | None = None
        self.guarded: fx.Node | None = None
        self.moved = False
        self.assumed = False

    def take(self, source: AffineSource) -> Affine:
        """Return the affine of a source, once everything it rests on is checked."""
        self.graph.require_changeable(source.node)
        affine = source.affine()
        if source.unproven_rank is not None:
            self.rely_on(source, source.unproven_rank)
        return affine

    def rely_on(self, source: AffineSource, rank: Rank) -> None:
        """Let a check stay in the model; without one, only what example inputs have shown is enough.

        There is one check, of one number, in the place of ``source``.
        """
        value, detail = self.name(source.input), "only usual, and guards=False asks for a proof"
        require(self.graph.guards or not rank.assumed, Reason.UNKNOWN_SHAPE, value=value, detail=detail)
        require(not self.moved, Reason.UNKNOWN_SHAPE, value=value, detail="only usual, or only seen")
        self.guard = rank.axes if self.graph.guards else None
        self.guarded = source.node
        self.assumed = self.assumed or rank.assumed

    def vector(self, view: Linear, affine: Affine, axis: int, channels: int) -> Affine:
        """Return the affine as two vectors along the channels, where the weights are."""
        vector = affine.vector(axis, channels)
        if vector is None:
            detail = f"{channels} channels on axis {axis}, shape {tuple(affine.scale.shape)}"
            raise Refusal(Reason.NOT_PER_CHANNEL, value=self.name(view.node), detail=detail)
        return vector.rearrange(lambda t: t.to(view.weight.device))  # scalars live on the CPU

    def require_same_kind(self, view: Linear) -> None:
        """Refuse constants on another device, or of a dtype that would change that of the result."""
        weight, name = view.weight, self.name(view.node)
        before, after = recorded_dtype(view.node), recorded_dtype(self.sources[0].node)
        # Under autocast a layer gives another dtype than its weights have.
        same = before is None or after is None or before == after
        require(same, Reason.PROMOTES, detail=f"{before} becomes {after}")
        for source in self.sources:
            for tensor in source.tensors:
                elsewhere = tensor.device != weight.device
                require(not elsewhere, Reason.MIXED_DEVICE, value=name, device=tensor.device, other=weight.device)
                promoted = torch.promote_types(tensor.dtype, weight.dtype) if tensor.ndim else weight.dtype
                same = promoted == weight.dtype or not source.promotes
                require(same, Reason.PROMOTES, detail=f"{weight.dtype} with {tensor.dtype} gives {promoted}")

    def require_nobody_tells(self) -> None:
        """Refuse readers that need a value of its own, where a view may take the place of what a source made."""
        for source in self.sources:
            reader = self.graph.layout.first_stickler(source.node)
            if reader is not None:
                raise Refusal(Reason.LAYOUT, value=self.name(source.input), users=self.name(reader))

    def name(self, value: fx.Node) -> str:
        """Return a node for a sentence."""
        return self.graph.describe(value)
