"""All that a sum adds up, through sums of sums, and scales of sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import torch

from fxfuse.affine import Affine
from fxfuse.operators.joins import Stack
from fxfuse.operators.noops import Noop
from fxfuse.operators.roles import AffineSource, Linear
from fxfuse.operators.sums import Sum, SumOfStack
from fxfuse.reasons import Reason, Refusal, require
from fxfuse.rules.routes import Obstacle, Route, routes

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph import Graph
    from fxfuse.operators.roles import View


# Operations from the last to the first, each with the operand on the way.
Path: TypeAlias = "tuple[tuple[fx.Node, fx.Node], ...]"


@dataclass(frozen=True, eq=False)
class Branch:
    """A value that a sum adds.

    Attributes:
        value: what is added.
        affine: what the sum does to it.
        path: the operations between, each with the operand on the way to the value, the sum itself first.
        plain: nothing lies between but sums.
        ways: the ways back from it, the shortest first.
        obstacle: what ends the longest of them.
        route: the way back that was chosen.
    """

    value: fx.Node
    affine: Affine
    path: Path
    plain: bool
    ways: list[Route]
    obstacle: Obstacle | None
    route: Route

    @property
    def reader(self) -> fx.Node:
        """The operation that reads the value."""
        return self.path[-1][0]

    @property
    def is_new(self) -> bool:
        """Whether an operation made the value for this sum alone."""
        return any(not isinstance(view, Noop) for view in self.route.views)

    def plain_over(self, host: Branch) -> Affine:
        """Return what the sum does to it, in terms of what it does to ``host``: factors without shifts."""
        scale = self.affine.scale / host.affine.scale
        return Affine(scale, torch.zeros_like(scale))


@dataclass
class SumTree:
    """A sum, with all that it adds.

    Attributes:
        graph: the graph.
        root: the outermost sum.
        branches: what it adds.
        inner: the values between the branches and the root.
    """

    graph: Graph
    root: Sum
    branches: list[Branch] = field(default_factory=list)
    inner: set[fx.Node] = field(default_factory=set)

    @property
    def is_part_of_larger(self) -> bool:
        """Whether its only reader is a sum as well."""
        users = self.graph.users(self.root.node)
        while len(users) == 1 and (self.graph.plays(users[0], Noop) or self.graph.plays(users[0], Stack)):
            users = self.graph.users(users[0])
        return len(users) == 1 and self.graph.may_be(users[0], Sum) and isinstance(self.graph.view(users[0]), Sum)

    def grow(self) -> None:
        """Find all that is added; an operation whose result others use ends the way."""
        one, zero = (torch.tensor(number, dtype=torch.float64, device="cpu") for number in (1.0, 0.0))
        pending: list[tuple[fx.Node, Affine, Path, bool]] = [(self.root.node, Affine(one, zero), (), True)]
        while pending:
            node, affine, path, plain = pending.pop()
            view = self._between(node, path)
            if isinstance(view, Sum):
                shift = affine.shift
                for value, factor in view.terms():
                    step = ((node, self._operand(view, value)), *self._through_stack(view, value))
                    pending.append((value, Affine(affine.scale * factor, shift), (*path, *step), plain))
                    shift = torch.zeros_like(shift)  # it is added once
            elif isinstance(view, AffineSource) and self._leads_to_sum(view):
                pending.append((view.input, affine.after(view.affine()), (*path, (node, view.input)), False))
            elif isinstance(view, Noop) and view.droppable and self._leads_to_sum(view):
                pending.append((view.input, affine, (*path, (node, view.input)), plain))
            else:
                self._add(node, affine, path, plain=plain)
                continue
            self.inner.add(node)
        self.branches.reverse()  # as they were written

    def _between(self, node: fx.Node, path: Path) -> View | None:
        """Return what makes a value that only its reader uses."""
        alone = not path or self.graph.users(node) == [path[-1][0]]
        known = any(self.graph.may_be(node, role) for role in (Sum, AffineSource, Noop))
        try:
            return self.graph.view(node) if alone and known else None
        except Refusal:
            return None

    def _operand(self, view: Sum, value: fx.Node) -> fx.Node:
        return view.call.arguments["input"] if isinstance(view, SumOfStack) else value

    def _through_stack(self, view: Sum, value: fx.Node) -> Path:
        return ((self._operand(view, value), value),) if isinstance(view, SumOfStack) else ()

    def _leads_to_sum(self, view: AffineSource | Noop) -> bool:
        """Whether a sum lies before an affine, or before several."""
        current: View | None = view
        while isinstance(current, (AffineSource, Noop)):
            if isinstance(current, AffineSource) and (not current.vanishes or current.unproven_rank is not None):
                return False
            before, reader = current.input, current.node
            current = self._between(before, ((reader, before),))
        return isinstance(current, Sum)

    def _add(self, value: fx.Node, affine: Affine, path: Path, *, plain: bool) -> None:
        ways, obstacle = routes(self.graph, value, path[-1][0])
        self.branches.append(Branch(value, affine, path, plain, ways, obstacle, ways[0]))

    def of_one_value(self) -> list[Branch] | None:
        """Return the branches that read one value, at least two and one of them through a layer with weights.

        Raises:
            Refusal: if there would be a second one but for one obstacle.
        """
        starts = Counter(way.start for branch in self.branches for way in branch.ways)
        hosts = [w.start for b in self.branches for w in b.ways if w.linears and w.linears[-1].input is w.start]
        if not hosts:
            return None
        lengths: Counter[fx.Node] = Counter()
        for branch in self.branches:
            lengths.update({way.start: len(way.views) for way in branch.ways})
        # As many branches as possible, by the shortest ways.
        start = min(dict.fromkeys(hosts), key=lambda node: (-starts[node], lengths[node]))
        chosen = [replace(b, route=way) for b in self.branches for way in b.ways if way.start is start]
        if len(chosen) < 2:
            self._tell(start)
            return None
        return chosen

    def _tell(self, start: fx.Node) -> None:
        """Refuse, if a layer with weights would read the same value but for one obstacle on the way."""
        found = [b.obstacle for b in self.branches if b.obstacle is not None and b.obstacle.value is not start]
        layers = [o for o in found if self._reads(o.value, start)]
        behind = [o for o in found if any(self._reads(value, start) for value in o.value.all_input_nodes)]
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

    def bypass(self, host: Branch, taken: list[Branch], source: fx.Node) -> Path:
        """Return what goes, each with what its users read instead, so that the host's layer gives the sum of all."""
        inside = [(view.node, view.input) for view in host.route.views if view.node is not source]
        if len(taken) == len(self.branches):
            return (*host.path, *inside)
        now: dict[fx.Node, fx.Node] = {}
        pairs = []
        for branch in taken:
            if branch is host:
                continue
            for node, operand in reversed(branch.path):
                if node not in now and not self.graph.plays(node, Noop):
                    now[node] = self._other(node, operand)
                    pairs.append((node, _resolved(now[node], now)))
                    break
        return (*pairs, *inside)

    def _other(self, node: fx.Node, operand: fx.Node) -> fx.Node:
        """Return the other value of a sum of two, which must be added as it is."""
        view = self.graph.view(node)
        others = [t for t in view.terms() if t.value is not operand] if isinstance(view, Sum) else []
        plain = len(others) == 1 and others[0].factor == 1 and not isinstance(view, SumOfStack)
        require(plain, Reason.MISALIGNED, value=self.graph.describe(node), detail="the rest is added with a factor")
        return others[0].value


def _resolved(value: fx.Node, now: dict[fx.Node, fx.Node]) -> fx.Node:
    while value in now:
        value = now[value]
    return value
