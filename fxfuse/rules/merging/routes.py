"""The ways back from a value, through operations that are linear in what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fxfuse.graph.uses import asks_rank
from fxfuse.operators.noops import Copy, Noop
from fxfuse.operators.pools import Pool
from fxfuse.operators.roles import AffineSource, Linear
from fxfuse.operators.sums import Sum
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.facts import NodeView
    from fxfuse.graph.graph import Graph


class Route(NamedTuple):
    """A way back from a value.

    Attributes:
        start: the value where it ends: what all the operations on it are applied to.
        views: the operations, from the last to the first.
    """

    start: fx.Node
    views: tuple[NodeView, ...] = ()

    @property
    def linears(self) -> list[Linear]:
        """The layers with weights."""
        return [view for view in self.views if isinstance(view, Linear)]

    @property
    def is_new(self) -> bool:
        """Whether an operation on it made a value of its own."""
        return any(not isinstance(view, Noop) for view in self.views)


class Obstacle(NamedTuple):
    """What a way back ends at, and why."""

    value: fx.Node
    refusal: Refusal


LONGEST = 16  # operations on a way back; nobody writes longer branches without an activation


def routes(graph: Graph, value: fx.Node, reader: fx.Node) -> tuple[list[Route], Obstacle | None]:
    """Return all ways back from a value that only ``reader`` uses, the shortest first, and what ends the longest."""
    found = [Route(value)]
    while len(found) <= LONGEST:
        current = found[-1].start
        try:
            view = _linear_in_its_input(graph, current, reader)
        except Refusal as refusal:
            return found, Obstacle(current, refusal)
        found.append(Route(view.input, (*found[-1].views, view)))
        reader = view.node
    return found, None


def _linear_in_its_input(graph: Graph, value: fx.Node, reader: fx.Node) -> NodeView:
    view = graph.view(value)
    takes = isinstance(view, (Linear, Pool)) or (isinstance(view, AffineSource) and view.vanishes)
    # A copy in a branch is of no use: the sum makes a new value.
    takes = takes or (isinstance(view, Noop) and (view.droppable or isinstance(view, Copy)))
    require(takes, Reason.NOT_LINEAR, value=graph.describe(value))
    assert view is not None  # noqa: S101 - it is one of these
    for written in graph.mutated(view.node):
        # What is written into must be a value that was made for this operation alone.
        new = graph.users(written) == [view.node] and any(graph.may_be(written, role) for role in _MAKES_NEW)
        require(new, Reason.MUTATED, value=graph.describe(written), users=graph.describe(view.node))
    # Whoever asks for its shape needs it as well; the number of axes is that of what it reads.  Where the user's code
    # is kept, it also runs what nobody uses.
    others = [user for user in value.users if user is not reader and not asks_rank(user)]
    others = [user for user in others if graph.keeps_code or user not in graph.dead]
    alone = graph.users(value) == [reader] and not others
    require(alone, Reason.SEVERAL_USES, value=graph.describe(value), users=graph.names(others or [reader]))
    return view


_MAKES_NEW = (Linear, Pool, AffineSource, Sum)
