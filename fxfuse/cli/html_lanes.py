"""Where the lines of a drawn graph run: the nodes stand in one column, and lines that skip nodes run beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lines(NamedTuple):
    """What is drawn in one row; lanes are counted from the column of the nodes outwards.

    Attributes:
        passing: lanes that run through.
        starting: the lane in which the value of the node goes on, or -1 where nobody but the next node reads it.
        ending: lanes that end at the node.
        tapped: lanes that the node reads and that run on.
        above: whether a line comes straight from the node before.
        below: whether a line goes straight to the next node.
    """

    passing: tuple[int, ...] = ()
    starting: int = -1
    ending: tuple[int, ...] = ()
    tapped: tuple[int, ...] = ()
    above: bool = False
    below: bool = False


def lanes(rows: int, inputs: Mapping[int, list[int]]) -> list[Lines]:
    """Return what to draw in each row.

    Args:
        rows: how many there are; some may have no node in this drawing.
        inputs: row of a node -> rows of the nodes that it reads, for all nodes, from the first to the last.
    """
    following = dict(zip(inputs, list(inputs)[1:], strict=False))
    last: dict[int, int] = {}  # row of a value that needs a lane -> row of its last reader
    for row, sources in inputs.items():
        last |= {source: row for source in sources if following[source] != row}
    live: dict[int, int] = {}  # row of a value -> its lane
    drawn: list[Lines] = []
    straight = False
    for row in range(rows):
        sources = [source for source in inputs.get(row, ()) if source in live and following[source] != row]
        ending = [live.pop(source) for source in sources if last[source] == row]
        tapped = tuple(live[source] for source in sources if source in live)
        passing = tuple(lane for lane in live.values() if lane not in tapped)
        above = straight
        if row in inputs:
            straight = row in inputs.get(following.get(row, -1), ())
        starting = -1
        if row in last:
            starting = live[row] = next(lane for lane in range(rows) if lane not in live.values())
        drawn.append(Lines(passing, starting, tuple(ending), tapped, above, straight))
    return drawn
