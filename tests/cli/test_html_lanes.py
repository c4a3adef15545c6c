"""The lines of a drawn graph: none breaks off, and they lead to what each node reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fxfuse.cli.html_lanes import lanes


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, dict[int, list[int]]]:
    """Rows, of which some are empty, and what the nodes in the others read."""
    rows = draw(st.integers(0, 12))
    inputs: dict[int, list[int]] = {}
    for row in range(rows):
        if draw(st.booleans()):
            inputs[row] = draw(st.lists(st.sampled_from(sorted(inputs)), unique=True)) if inputs else []
    return rows, inputs


@given(graphs())
def test_whoever_follows_the_lines_finds_what_each_node_reads(graph: tuple[int, dict[int, list[int]]]) -> None:
    rows, inputs = graph
    occupied: dict[int, int] = {}  # lane -> row of the value in it
    straight: int | None = None
    for row, piece in enumerate(lanes(rows, inputs)):
        assert piece.above is (straight is not None)
        assert sorted([*piece.passing, *piece.ending, *piece.tapped]) == sorted(occupied), "no line breaks off"
        read = [occupied[lane] for lane in (*piece.ending, *piece.tapped)]
        if row in inputs:
            read += [straight] if straight is not None else []
            straight = row if piece.below else None
        assert sorted(read) == sorted(inputs.get(row, ()))
        for lane in piece.ending:
            del occupied[lane]
        if piece.starting >= 0:
            assert piece.starting not in occupied
            occupied[piece.starting] = row
    assert occupied == {}
    assert straight is None
