"""All that a sum adds up, through sums of sums, and scales of sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fxfuse.algebra.affine import Affine, numbers
from fxfuse.operators.joins import Stack
from fxfuse.operators.noops import Noop
from fxfuse.operators.roles import AffineSource, Linear
from fxfuse.operators.sums import Sum, SumOfStack
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules.merging.branches import Branch, Step
from fxfuse.rules.merging.routes import routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from fxfuse.graph.facts import NodeView
    from fxfuse.graph.graph import Graph


@dataclass
class SumTree:
    """A sum, with all that it adds.

    Attributes:
        graph: the graph.
        root: the outermost sum.
        branches: what it adds.
        inner: the values between the branches and the root.
        scales: what is multiplied or added between.
    """

    graph: Graph
    root: Sum
    branches: list[Branch] = field(default_factory=list)
    inner: set[fx.Node] = field(default_factory=set)
    scales: list[AffineSource] = field(default_factory=list)

    @property
    def is_part_of_larger(self) -> bool:
        """Whether its only reader is a sum as well."""
        reader = self._only_user(self.root.node)
        while reader is not None and self._is_passed(reader):
            reader = self._only_user(reader)
        return reader is not None and self.graph.may_be(reader, Sum) and isinstance(self.graph.view(reader), Sum)

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        """Return the only user of a value; None if there are several, or something asks for its shape."""
        users = self.graph.users(node)
        return users[0] if len(users) == 1 and list(node.users) == users else None

    def _is_passed(self, node: fx.Node) -> bool:
        view = self.graph.view(node) if self.graph.plays(node, Noop) else None
        return self.graph.plays(node, Stack) or (isinstance(view, Noop) and view.droppable)

    def grow(self) -> None:
        """Find all branches: each begins where a value has other users, or is no sum and no scale of one."""
        one, zero = numbers(1.0, 0.0)
        pending: list[tuple[fx.Node, Affine, Step | None, bool]] = [
            (self.root.node, Affine(one, zero, shifts=False), None, True)
        ]
        while pending:
            node, affine, above, plain = pending.pop()
            view = self._between(node, above.node if above is not None else None)
            if isinstance(view, Sum):
                shift, shifts = affine.shift, affine.shifts
                for value, factor in view.terms():
                    step = self._step(view, value, above)
                    scale = affine.scale if factor == 1 else affine.scale * factor
                    pending.append((value, Affine(scale, shift, shifts), step, plain))
                    shift, shifts = zero, False  # it is added once
            elif isinstance(view, AffineSource) and self._leads_to_sum(view):
                self.scales.append(view)
                first = view.affine().rearrange(lambda t: t.cpu())  # they meet the weights where these are
                pending.append((view.input, affine.after(first), Step(node, view.input, above), False))
            elif isinstance(view, Noop) and view.droppable and self._leads_to_sum(view):
                pending.append((view.input, affine, Step(node, view.input, above), plain))
            elif above is not None:
                ways, obstacle = routes(self.graph, node, above.node)
                self.branches.append(Branch(node, affine, above, plain, ways, obstacle, ways[0]))
                continue
            self.inner.add(node)
        self.branches.reverse()  # as they were written

    def _between(self, node: fx.Node, reader: fx.Node | None) -> NodeView | None:
        """Return the operation that gives a value, if only its reader uses it."""
        if not any(self.graph.may_be(node, role) for role in (Sum, AffineSource, Noop)):
            return None
        if reader is not None and self._only_user(node) is not reader:
            return None  # also where somebody asks for its shape
        try:
            view = self.graph.view(node)
        except Refusal:
            return None
        stacked = isinstance(view, Sum) and view.reader is not node and list(view.reader.users) != [node]
        return None if stacked else view

    def _step(self, view: Sum, value: fx.Node, above: Step | None) -> Step:
        if view.reader is view.node:
            return Step(view.node, value, above)
        self.inner.add(view.reader)
        return Step(view.reader, value, Step(view.node, view.reader, above))

    def _leads_to_sum(self, view: AffineSource | Noop) -> bool:
        """Whether it scales or shifts a sum, directly or through others like it."""
        current: NodeView | None = view
        while isinstance(current, (AffineSource, Noop)):
            if isinstance(current, AffineSource) and (not current.leaves_nothing or current.unproven_rank is not None):
                return False
            before, reader = current.input, current.node
            current = self._between(before, reader)
        return isinstance(current, Sum)

    def groups(self) -> list[list[Branch]]:
        """Return branches that read one value, at least two and one of them through a layer: the largest group first.

        Raises:
            Refusal: if there would be a second one but for one obstacle.
        """
        starts = Counter(way.start for branch in self.branches for way in branch.ways)
        hosts = [w.start for b in self.branches for w in b.ways if w.linears and w.linears[-1].input is w.start]
        lengths: Counter[fx.Node] = Counter()
        for branch in self.branches:
            lengths.update({way.start: len(way.views) for way in branch.ways})
        # As many branches as possible, by the shortest routes.
        order = sorted(dict.fromkeys(hosts), key=lambda node: (-starts[node], lengths[node]))
        if order and starts[order[0]] < 2:
            self._tell(order[0])
        return [
            [replace(b, route=way) for b in self.branches for way in b.ways if way.start is start]
            for start in order
            if starts[start] > 1
        ]

    def _tell(self, start: fx.Node) -> None:
        """Refuse, if one obstacle keeps a second layer from reading the same value."""
        found = [b.obstacle for b in self.branches if b.obstacle is not None and b.obstacle.value is not start]
        layers = [o for o in found if self._reads(o.value, start)]
        # An activation of a layer of `start`, if it is added itself: with more layers behind it, nothing could merge.
        added = {b.value for b in self.branches}
        behind = [o for o in found if o.value in added and any(self._reads(v, start) for v in o.value.all_input_nodes)]
        for obstacle in (*layers, *behind):
            raise obstacle.refusal

    def _reads(self, layer: fx.Node, start: fx.Node) -> bool:
        return start in layer.all_input_nodes and self.graph.plays(layer, Linear)

    def require_plain(self, taken: list[Branch]) -> None:
        """Refuse to take a part of the branches out of a sum that is scaled, or subtracted from."""
        host = taken[0]
        for branch in taken:
            name = self.graph.describe(branch.value)
            require(branch.plain, Reason.MISALIGNED, value=name, detail="other branches are added before a scale")
        signs = abs(float(host.affine.scale)) == 1
        require(signs, Reason.MISALIGNED, value=self.graph.describe(host.value), detail="it is added with a factor")

    def bypass(self, taken: list[Branch], source: fx.Node) -> tuple[tuple[fx.Node, fx.Node], ...]:
        """Return what goes, each with what its users read instead, so that ``source`` gives the sum of all.

        Args:
            taken: the branches that become one, first the one to which ``source`` belongs.
            source: the layer that gives their sum from now on.
        """
        host, *others = taken
        inside = [(view.node, view.input) for view in host.route.views if view.node is not source]
        if len(taken) == len(self.branches):
            return (*[(step.node, step.operand) for step in host.step.upwards()][::-1], *inside)
        now: dict[fx.Node, fx.Node] = {}
        pairs = []
        for branch in others:
            # The nearest sum that is still there gives its other value instead.
            steps = (s for s in branch.step.upwards() if s.node not in now and not self.graph.plays(s.node, Noop))
            step = next(steps)
            now[step.node] = self._other(step.node, step.operand)
            pairs.append((step.node, _resolved(now[step.node], now)))
        self._require_new_targets(now)
        return (*pairs, *inside)

    def _require_new_targets(self, now: Mapping[fx.Node, fx.Node]) -> None:
        """Refuse where a sum that stays would write into another value than before, which others may see."""
        made = {branch.value for branch in self.branches if branch.ways[-1].is_new}
        for node in self.inner - now.keys():
            for written in self.graph.mutated(node):
                target = _resolved(written, now)
                new = target is written or target in made or target in self.inner
                require(new, Reason.MUTATED, value=self.graph.describe(target), users=self.graph.describe(node))

    def _other(self, node: fx.Node, operand: fx.Node) -> fx.Node:
        """Return the other value of a sum of two, which must be added as it is."""
        view = self.graph.view(node)
        others = [t for t in view.terms() if t.value is not operand] if isinstance(view, Sum) else []
        plain = len(others) == 1 and others[0].factor == 1 and not isinstance(view, SumOfStack)
        require(plain, Reason.MISALIGNED, value=self.graph.describe(node), detail="the rest is added with a factor")
        return others[0].value


def _resolved(value: fx.Node, now: Mapping[fx.Node, fx.Node]) -> fx.Node:
    while value in now:
        value = now[value]
    return value
