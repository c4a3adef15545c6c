"""Sums of linear maps of one value: ``conv3x3(x) + conv1x1(x) + norm(x) + x`` is one convolution of ``x``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fxfuse.algebra.filters import shape_of_sum, sum_of
from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.plan import Merge
from fxfuse.operators.noops import Noop
from fxfuse.operators.sums import Sum
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules.merging.merger import Merger, last_first
from fxfuse.rules.merging.sum_tree import SumTree
from fxfuse.rules.walk import require_constants_of_same_kind

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.algebra.filters import Filter, Shape
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan
    from fxfuse.rules.merging.branches import Branch


def merge_branches(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv3x3(x) + conv1x1(x) + norm(x) + x`` becomes ``conv3x3(x)``.

    The kernels are added where their taps align.  Branches of other values stay in the sum.
    """
    if not graph.may_be(node, Sum) or node in graph.dead:
        return None
    view = graph.view(node)
    if not isinstance(view, Sum):
        return None
    tree = SumTree(graph, view)
    if tree.is_part_of_larger:
        return None
    tree.grow()
    refusals: list[Refusal] = []
    for group in tree.groups():
        try:
            return _Group(graph, tree, group).plan()
        except Refusal as refusal:  # noqa: PERF203 - another group may do
            refusals.append(refusal)
    if refusals:
        raise refusals[0]
    return None


class _Group:
    """Branches of a sum that read one value, to be merged into one of them."""

    def __init__(self, graph: Graph, tree: SumTree, branches: list[Branch]) -> None:
        self.graph = graph
        self.tree = tree
        hosts = [b for b in branches if b.route.linears and b.route.linears[-1].input is b.route.start]
        # The largest kernel comes first: the others are most likely to fit into it.
        hosts.sort(key=lambda b: -b.route.linears[-1].weight.numel())
        self.host = hosts[0]
        self.branches = [self.host, *(b for b in branches if b is not self.host)]
        self.merger = Merger(graph, self.host.route.linears[-1])

    def plan(self) -> Merge:
        """Take in as many branches as fit and pay off."""
        taken, host = self._fitting(), self.merger.host.node
        routes, result = [branch.route for branch in taken], self.tree.root.node
        whole = len(taken) == len(self.tree.branches)
        if not whole:
            self.tree.require_plain(taken)
        for source in self.tree.scales if whole else ():
            require_constants_of_same_kind(self.graph, self.merger.host, source)
        self.merger.filters.unproven.clear()  # branches that were tried and stay need no check
        merged = sum_of([self._filter(branch, whole=whole) for branch in taken])
        write = self.merger.write(merged, result, routes)
        self._require_checkable(whole=whole)
        bypass = self.tree.bypass(taken, host)
        gone = {node for node, _ in bypass}
        inside = [view.node for route in routes for view in route.views]
        around = list(self.tree.inner) if whole else self._idle(taken)
        self._require_unchanged(taken, [*gone, *around])
        told = {v.node for r in routes for v in r.views if v.node is not host and not isinstance(v, Noop)}
        before, after = self.merger.costs(routes, merged, len(taken) - 1)
        return Merge(
            (write,),
            bypass,
            self.merger.guard(bypass[-1][0]),
            start=routes[0].start,
            result=result,
            merged=tuple(sorted(told)) or (result,),
            before=before,
            after=after,
            dropped=last_first(n for n in (*inside, *around) if n is not host and n not in gone),
        )

    def _require_checkable(self, *, whole: bool) -> None:
        """Refuse a check of the number of axes where other values, perhaps of fewer axes, stay in the sum."""
        for _, value in self.merger.filters.unproven if not whole else ():
            detail = "only usual, or only seen"
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self.graph.describe(value), detail=detail)

    def _idle(self, taken: list[Branch]) -> list[fx.Node]:
        """Return the no-ops between a merged branch and its sum, which nothing needs any more."""
        found: list[fx.Node] = []
        for branch in taken[1:]:
            idle = itertools.takewhile(lambda step: self.graph.plays(step.node, Noop), branch.step.upwards())
            found += [step.node for step in idle]
        return found

    def _fitting(self) -> list[Branch]:
        """Return the branches that one kernel can hold, if that is more than one."""
        first = None
        taken, (shape, adds) = [self.host], self._measured(self.host)
        for branch in self.branches[1:]:
            try:
                one, more = self._measured(branch)
                together = self._union(branch, shape, one)
                self.merger.require_no_growth(adds + more, together.weights)
            except Refusal as refusal:
                first = first or refusal
                continue
            taken, shape, adds = [*taken, branch], together, adds + more
        if first is not None and len(taken) == 1:
            raise first
        return taken

    def _measured(self, branch: Branch) -> tuple[Shape, int]:
        """Return the shape of a branch, and its multiply-adds for one position."""
        try:
            return self.merger.filters.shape(branch.route), self.merger.filters.multiply_adds(branch.route)
        except Misfit as misfit:
            raise self._refusal(branch, misfit) from None

    def _union(self, branch: Branch, one: Shape, other: Shape) -> Shape:
        try:
            return shape_of_sum([one, other])
        except Misfit as misfit:
            raise self._refusal(branch, misfit) from None

    def _refusal(self, branch: Branch, misfit: Misfit) -> Refusal:
        nodes = [b.route.views[-1].node for b in (self.host, branch) if b.route.views]
        return self.merger.refusal(list(dict.fromkeys(nodes)), misfit)

    def _filter(self, branch: Branch, *, whole: bool) -> Filter:
        """Return what a branch adds to the sum, as a filter of the common value."""
        one = self.merger.filters.filter(branch.route)
        # A sum that keeps other values gets from the host what it got before, times the sign of the host.
        affine = branch.affine if whole else branch.plain_over(self.host)
        return one.scaled(self.merger.filters.along_channels(affine, one.shape.out_channels, branch.value))

    def _require_unchanged(self, taken: list[Branch], gone: list[fx.Node]) -> None:
        """Refuse where the branches read different values, or a removed in-place sum writes into what others read."""
        routes = [branch.route for branch in taken]
        readers = [b.route.views[-1].node if b.route.views else b.step.node for b in taken]
        self.merger.require_same_value(routes[0].start, readers)
        self.merger.require_same_layout(routes, self.tree.root.node)
        for node in gone:
            self.graph.require_changeable(node)
            for written in self.graph.mutated(node):
                ours = written in self.tree.inner or any(b.value is written and b.route.is_new for b in taken)
                require(ours, Reason.MUTATED, value=self.graph.describe(written), users=self.graph.describe(node))
