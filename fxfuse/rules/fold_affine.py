"""The walk: move an affine upstream until every path ends in a linear operation that absorbs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fxfuse.call import Plan, Write
from fxfuse.operators.roles import AffineSource, Carrier, Linear
from fxfuse.report import Reason, Refusal, require
from fxfuse.shapes import recorded_dtype

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.affine import Affine
    from fxfuse.graph import Graph
    from fxfuse.operators.roles import View
    from fxfuse.shapes import Rank


def fold_upstream(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv -> bn`` becomes ``conv``, through anything that an affine can pass.

    Sources that follow each other directly are composed first, so that the weights are rounded once.
    """
    if not graph.plays(node, AffineSource):
        return None
    source = graph.view(node)
    if not isinstance(source, AffineSource):
        return None
    return _Walk(graph, source).plan()


class _Walk:
    """One affine on its way up from the node that applies it."""

    def __init__(self, graph: Graph, source: AffineSource) -> None:
        self.graph = graph
        self.sources = [source]
        self.guard: int | None = None
        self.assumed = False

    def plan(self) -> Plan:
        """Walk to the end of every path."""
        source = self.sources[0]
        writes: list[Write] = []
        pending = [(source.input, source.node, self._take(source))]
        while pending:
            value, reader, affine = pending.pop()
            view = self._view(value, reader)
            if isinstance(view, Linear):
                writes.append(self._absorb(view, affine))
            elif isinstance(view, AffineSource):
                self.sources.append(view)
                pending.append((view.input, view.node, affine.after(self._take(view))))
            elif isinstance(view, Carrier):
                pending += [(inner, view.node, moved) for inner, moved in view.pull(affine)]
        # From the last to the first: each reads the one before until that goes too.
        return Plan(tuple(writes), tuple((s.node, s.input) for s in self.sources), self.guard, self.assumed)

    def _take(self, source: AffineSource) -> Affine:
        """Return the affine of a source, once everything it rests on is checked."""
        self.graph.require_changeable(source.node)
        affine = source.affine()
        if source.unproven_rank is not None:
            self._rely_on(source.input, source.unproven_rank)
        return affine

    def _rely_on(self, value: fx.Node, rank: Rank) -> None:
        """Let a check stay in the model; without one, only what example inputs have shown is enough."""
        detail = "only usual, and guards=False asks for a proof"
        allowed = self.graph.guards or not rank.assumed
        require(allowed, Reason.UNKNOWN_SHAPE, value=self._name(value), detail=detail)
        self.guard = rank.axes if self.graph.guards else None
        self.assumed = self.assumed or rank.assumed

    def _view(self, value: fx.Node, reader: fx.Node) -> View:
        """Return what makes the value, if the affine may pass there: nobody else sees the value."""
        view = self.graph.view(value)
        if view is None:
            raise Refusal(Reason.NOT_LINEAR, value=self._name(value))
        users = self.graph.users(value)
        others = [user for user in users if user is not reader] or users
        changed = [user for user in others if value in self.graph.mutated(user)]
        require(not changed, Reason.MUTATED, value=self._name(value), users=self.graph.names(changed))
        # A reader of which nobody uses the result is no user, and may be the one that asks.
        alone = users in ([reader], [])
        require(alone, Reason.SEVERAL_USES, value=self._name(value), users=self.graph.names(others))
        return view

    def _absorb(self, view: Linear, affine: Affine) -> Write:
        """Return the edit that makes ``view`` give ``affine`` of what it gave."""
        self.graph.require_changeable(view.node)
        self._require_same_kind(view)
        linear_map = view.linear_map()
        vector = affine.vector(view.output_axis, linear_map.out_channels)
        if vector is None:
            detail = f"{linear_map.out_channels} channels on axis {view.output_axis}, shape {tuple(affine.scale.shape)}"
            raise Refusal(Reason.NOT_PER_CHANNEL, value=self._name(view.node), detail=detail)
        self._require_not_enlarged(view, affine)
        vector = vector.rearrange(lambda t: t.to(view.weight.device))  # scalars live on the CPU
        return view.with_map(linear_map.then_affine(vector))

    def _require_same_kind(self, view: Linear) -> None:
        """Refuse constants on another device, or of a dtype that would change that of the result."""
        weight, name = view.weight, self._name(view.node)
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

    def _require_not_enlarged(self, view: Linear, affine: Affine) -> None:
        """Refuse a constant with more axes than the value: the result would have more axes as well."""
        if affine.rank <= -view.output_axis:
            return
        rank = self.graph.rank(view.node)
        if rank is None:
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self._name(view.node), detail="not known")
        detail = f"it has {affine.rank} axes, the value {rank.axes}"
        require(affine.rank <= rank.axes, Reason.NOT_PER_CHANNEL, value=self._name(view.node), detail=detail)
        if rank.assumed or rank.seen:
            self._rely_on(view.node, rank)

    def _name(self, value: fx.Node) -> str:
        return self.graph.describe(value)
