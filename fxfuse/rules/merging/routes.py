"""Routes: chains of operations, each linear in its input, that end at a value."""

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
    """A chain of linear operations from one value to another.

    Attributes:
        start: the value that the first operation reads.
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
        """Whether an operation on it makes a new value."""
        return any(not isinstance(view, Noop) for view in self.views)


class Obstacle(NamedTuple):
    """A value that no longer route passes, and why."""

    value: fx.Node
    refusal: Refusal


LONGEST = 16  # operations on a route; nobody writes longer branches without an activation


def routes(graph: Graph, value: fx.Node, reader: fx.Node) -> tuple[list[Route], Obstacle | None]:
    """Return all routes to a value that only ``reader`` uses, the shortest first, and what ends the longest."""
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
    takes = isinstance(view, Pool) or (isinstance(view, Linear) and view.input in view.inputs)
    takes = takes or (isinstance(view, AffineSource) and view.leaves_nothing)
    # A copy in a branch is of no use: the sum makes a new value.
    takes = takes or (isinstance(view, Noop) and (view.droppable or isinstance(view, Copy)))
    require(takes, Reason.NOT_LINEAR, value=graph.describe(value))
    assert view is not None  # noqa: S101 - it is one of these
    for written in graph.mutated(view.node):
        # What is written into must be a value that was made for this operation alone.
        new = graph.users(written) == [view.node] and any(graph.may_be(written, role) for role in _MAKES_NEW)
        require(new, Reason.MUTATED, value=graph.describe(written), users=graph.describe(view.node))
    # Whoever asks for its shape needs it too, but its number of axes is that of its input.  Where the user's code is
    # kept, operations whose results nobody uses run as well.
    others = [user for user in value.users if user is not reader and not asks_rank(user)]
    others = [user for user in others if graph.keeps_code or user not in graph.dead]
    alone = graph.users(value) == [reader] and not others
    require(alone, Reason.SEVERAL_USES, value=graph.describe(value), users=graph.names(others or [reader]))
    return view


_MAKES_NEW = (Linear, Pool, AffineSource, Sum)
