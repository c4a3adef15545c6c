"""Sums of linear maps of one value: ``conv3x3(x) + conv1x1(x) + norm(x) + x`` is one convolution of ``x``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.call import Merge, Plan
from fxfuse.filters import shape_of_sum, sum_of
from fxfuse.geometry import Misfit
from fxfuse.operators.sums import Sum
from fxfuse.reasons import Reason, Refusal, require
from fxfuse.rules.merging import Merger, last_first
from fxfuse.rules.sum_tree import Branch, SumTree

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.filters import Filter
    from fxfuse.graph import Graph


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
    together = tree.of_one_value()
    return None if together is None else _Merge(graph, tree, together).plan()


class _Merge:
    """Some branches of a sum, all of one value, on their way into one of them."""

    def __init__(self, graph: Graph, tree: SumTree, branches: list[Branch]) -> None:
        self.graph = graph
        self.tree = tree
        hosts = [b for b in branches if b.route.linears and b.route.linears[-1].input is b.route.start]
        # The largest kernel comes first: the others are most likely to fit into it.
        hosts.sort(key=lambda b: -b.route.linears[-1].weight.numel())
        self.host = hosts[0]
        self.branches = [self.host, *(b for b in branches if b is not self.host)]
        self.merger = Merger(graph, self.host.route.linears[-1])

    def plan(self) -> Plan:
        """Take in as many branches as fit, and as pay."""
        taken, host = self._fitting(), self.merger.host.node
        routes, result = [branch.route for branch in taken], self.tree.root.node
        whole = len(taken) == len(self.tree.branches)
        if not whole:
            self.tree.require_plain(taken)
        merged = sum_of([self._filter(branch, whole=whole) for branch in taken])
        write = self.merger.write(merged, result)
        bypass = self.tree.bypass(self.host, taken, host)
        gone = {node for node, _ in bypass}
        inside = [view.node for route in routes for view in route.views]
        around = [node for branch in taken for node, _ in branch.path] if whole else []
        self._require_unchanged(taken, [*gone, *around])
        told = last_first(node for node in inside if node is not host)
        before, after = self.merger.costs(routes, merged, len(taken) - 1)
        return Plan(
            (write,),
            bypass,
            self.merger.guard(),
            self.merger.assumed,
            dropped=last_first(n for n in (*inside, *around) if n is not host and n not in gone),
            onwards=True,
            merge=Merge(routes[0].start, result, told or (result,), before, after),
        )

    def _fitting(self) -> list[Branch]:
        """Return the branches that one kernel can hold, if that is more than one."""
        taken, first = [self.host], None
        for branch in self.branches[1:]:
            try:
                self._require_fits([*taken, branch])
                taken.append(branch)
            except Refusal as refusal:  # noqa: PERF203 - each branch by itself
                first = first or refusal
        if first is not None and len(taken) == 1:
            raise first
        return taken

    def _require_fits(self, branches: list[Branch]) -> None:
        routes = [branch.route for branch in branches]
        try:
            shape = shape_of_sum([self.merger.pieces.shape(route) for route in routes])
            self.merger.require_no_growth(routes, shape.weights)
        except Misfit as misfit:
            raise self.merger.refusal([route.views[-1].node for route in routes if route.views], misfit) from None

    def _filter(self, branch: Branch, *, whole: bool) -> Filter:
        """Return what a branch adds to the sum, as a filter of the common value."""
        one = self.merger.pieces.filter(branch.route)
        # A sum that keeps other values gets from the host what it got before, times the sign of the host.
        affine = branch.affine if whole else branch.plain_over(self.host)
        return one.scaled(self.merger.pieces.along_channels(affine, one.shape.out_channels, branch.value))

    def _require_unchanged(self, taken: list[Branch], gone: list[fx.Node]) -> None:
        """Refuse where the branches read different values, or somebody sees what a sum that goes writes into."""
        routes = [branch.route for branch in taken]
        readers = [b.route.views[-1].node if b.route.views else b.reader for b in taken]
        self.merger.require_same_value(routes[0].start, readers)
        self.merger.require_same_layout(routes, self.tree.root.node)
        for node in gone:
            for written in self.graph.mutated(node):
                ours = written in self.tree.inner or any(b.value is written and b.is_new for b in taken)
                require(ours, Reason.MUTATED, value=self.graph.describe(written), users=self.graph.describe(node))
