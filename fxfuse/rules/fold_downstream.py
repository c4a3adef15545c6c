"""The walk downstream: move an affine to all its readers, until every path ends in a linear operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.graph.aliases import writer_between
from fxfuse.graph.call import refusal_of
from fxfuse.graph.plan import Fold, Write
from fxfuse.graph.ranks import recorded_dtype
from fxfuse.operators.roles import AffineSource, Carrier, Linear
from fxfuse.operators.splits import with_items
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules.walk import Walk

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.facts import NodeView
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


def fold_downstream(graph: Graph, node: fx.Node) -> Plan | None:
    """``bn -> conv`` becomes ``conv``, and ``layer_norm -> linear`` a bare normalisation before the linear layer.

    Either all readers of the value take the affine in, or none.
    """
    if not graph.plays(node, AffineSource):
        return None
    source = graph.view(node)
    if not isinstance(source, AffineSource) or not source.may_move_downstream or not graph.users(node):
        return None
    return _Downstream(graph, source).plan()


class _Downstream(Walk):
    """One affine on its way down from the node that applies it."""

    def plan(self) -> Fold:
        """Walk to the end of every path."""
        source = self.sources[0]
        pending = [(source.node, self.take(source))]
        without_affine, bypass = source.without_affine(), ((source.node, source.input),)
        writes: dict[fx.Node, Write] = {}
        while pending:
            value, affine = pending.pop()
            for reader in self._readers(value):
                view = self._view(reader, value)
                if isinstance(view, Linear):
                    require(reader not in writes, Reason.SEVERAL_USES, value=self.name(value), users=self.name(reader))
                    writes[reader] = self._absorb(view, affine)
                elif isinstance(view, Carrier):
                    pending.append((reader, self._pushed(view, affine, value)))
        if without_affine is not None:
            # The check would take the place of the normalisation, which stays.
            detail = "only usual, or only seen"
            require(self.guard is None, Reason.UNKNOWN_SHAPE, value=self.name(source.input), detail=detail)
            return Fold((without_affine, *writes.values()), stripped=source.node, downstream=True)
        if not self.graph.layout.is_dense(source.input, elementwise=not source.is_norm):
            self.require_strides_unused()
        self._require_same_until(source.input, source.node, writes)
        return Fold(tuple(writes.values()), bypass, self.guard, downstream=True)

    def _readers(self, value: fx.Node) -> list[fx.Node]:
        """Return the readers of a value, if each reads it once."""
        users = with_items(self.graph, self.graph.users(value))
        twice = [user for user in users if users.count(user) > 1]
        require(not twice, Reason.SEVERAL_USES, value=self.name(value), users=self.graph.names(twice))
        return users

    def _view(self, reader: fx.Node, value: fx.Node) -> NodeView:
        """Return a reader of the value, if it can take the affine in."""
        view = self.graph.view(reader)
        if not isinstance(view, (Carrier, Linear)) or value not in view.inputs:
            raise refusal_of(self.graph, reader, Reason.READ_BY)
        return view

    def _pushed(self, view: Carrier, affine: Affine, value: fx.Node) -> Affine:
        """Return what the affine becomes behind ``view``."""
        try:
            pushed = view.push(affine, value)
        except Refusal as refusal:
            # A carrier's refusal is worded for the walk upstream.
            if refusal.reason is not Reason.NOT_LINEAR:
                raise
            raise Refusal(Reason.READ_BY, value=self.name(view.node)) from None
        changed = value in self.graph.mutated(view.node)
        require(not changed, Reason.MUTATED, value=self.name(value), users=self.name(view.node))
        return pushed

    def _absorb(self, view: Linear, affine: Affine) -> Write:
        """Return the edit that makes ``view`` read ``affine`` of what it reads."""
        self.graph.require_changeable(view.node)
        self.require_same_kind(view)
        linear_map = view.linear_map()
        vector = self.vector(view, affine, view.input_axis, linear_map.in_channels)
        require(not view.reads_zeros or not vector.shifts, Reason.ZERO_PADDING, value=self.name(view.node))
        return self.with_sources(view.with_map(linear_map.after_affine(vector)))

    def take(self, source: AffineSource) -> Affine:
        """Return the affine, if the value has the same dtype without it."""
        value, result = (recorded_dtype(node) for node in (source.input, source.node))
        known = value is not None and value == result
        detail = f"the dtype of {self.name(source.input)} is not known"
        require(not source.promotes or known, Reason.PROMOTES, detail=detail)
        return super().take(source)

    def _require_same_until(self, value: fx.Node, start: fx.Node, ends: dict[fx.Node, Write]) -> None:
        """Refuse to read a value later than before, if something writes into it in between."""
        writer = writer_between(self.graph, value, start, set(ends))
        if writer is not None:
            raise Refusal(Reason.MUTATED, value=self.name(value), users=self.name(writer))
