"""What a random model is described by: a tree of steps, which shrinks to the shortest that fails."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from tests.fuzz.pieces import PIECES
from tests.fuzz.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Else numbers and choices depend on the constants in all files that are loaded: other tests would change them.
providers.HypothesisProvider._maybe_draw_constant = lambda *_, **__: None  # type: ignore[method-assign]

# The kinds of a module that consists of steps; "plain" is traced, the others each have a difficulty.
STYLES = ("proven", "plain", "optional", "asking", "branching", "direct", "idle", "region", "chunks", "handing")
# What happens to the module of one step.
MARKS = ("tied", "hooked", "watched", "training", "parametrized")
SHAPES = ((2, 8, 6, 4), (2, 8, 6), (3, 8), (2, 8, 6, 4, 5), (2, 4, 6, 5), (8, 6, 4), (8, 6), (8, 6, 4, 5), (8,))
OUTPUTS = ("unread", "last", "dict", "nested")
Outputs = Literal["unread", "last", "dict", "nested"]


@dataclass(frozen=True, repr=False)
class Step:
    """One call: of a row of the table, of a layer that fits the value, of an earlier module, or of several steps.

    Attributes:
        kind: the name of a row in ``ROWS``, or of a function in ``PIECES``, or "again", or "block".
        number: which of the samples of the row; elsewhere a number from which options are drawn.
        first: which value it reads, counted from the latest.
        second: which other value, where it reads two.
        marks: some of ``MARKS``.
        inner: the steps of a block.
        style: one of ``STYLES``, of a block.
    """

    kind: str
    number: int = 0
    first: int = 0
    second: int = 0
    marks: tuple[str, ...] = ()
    inner: tuple[Step, ...] = ()
    style: str = "proven"

    def __repr__(self) -> str:
        """Only what is not as usual."""
        return _shown(self)


@dataclass(frozen=True, repr=False)
class Recipe:
    """A whole model: its input, what it does, what it returns, and how it is fused."""

    steps: tuple[Step, ...]
    shape: tuple[int, ...] = SHAPES[0]
    style: str = "proven"
    outputs: Outputs = "unread"
    structure: Literal["graph", "module"] = "graph"
    options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Only what is not as usual."""
        return _shown(self)


def _shown(described: Step | Recipe) -> str:
    """The call that makes it, without what is the default."""
    given = {f.name: getattr(described, f.name) for f in fields(described)}
    usual = {f.name: f.default for f in fields(described)}
    listed = [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
    return f"{type(described).__name__}({', '.join(listed)})"


LATEST = st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3])
OTHER = st.sampled_from([1, 0, 2, 3, 4])
NUMBER = st.integers(0, 99)
MARKED = st.one_of(*[st.just(())] * 31, st.sampled_from(MARKS).map(lambda mark: (mark,)))


def steps(kinds: Iterable[str], first: st.SearchStrategy[int] = LATEST) -> st.SearchStrategy[Step]:
    """Steps of some kinds."""
    return st.builds(Step, st.sampled_from(list(kinds)), NUMBER, first, OTHER, MARKED)


def of_role(*roles: str) -> list[str]:
    """The names of the rows that play one of some roles."""
    return [name for name, row in ROWS.items() if row[0].role in roles]


HERE = st.just(0)
LAYER = st.one_of(steps(["layer", "layer", "linear"]), steps(of_role("Linear")))
AFFINE = st.one_of(steps(["norm", "norm", "norm", "scale"], HERE), steps(of_role("AffineSource"), HERE))
TAIL = st.one_of(steps(["tail", "norm"]), steps(of_role("Tail")))
CARRIERS = of_role("Carrier", "Parts", "Join", "Sum")
CARRIER = steps([*CARRIERS, "view", "idle"], HERE)
ANY_ROW = steps(ROWS)
ANY_PIECE = steps(PIECES)


def joined(*parts: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[tuple[Step, ...]]:
    """All of several lists of steps, one after the other."""
    return st.tuples(*parts).map(lambda found: sum(found, ()))


def alone(step: st.SearchStrategy[Step]) -> st.SearchStrategy[tuple[Step, ...]]:
    """A list of one step."""
    return step.map(lambda found: (found,))


def some(step: st.SearchStrategy[Step], most: int) -> st.SearchStrategy[tuple[Step, ...]]:
    """A list of up to so many steps."""
    return st.lists(step, max_size=most).map(tuple)


# What folds backwards, what folds onwards, and what merges, each with something in between at times.
BACK = joined(alone(LAYER), some(CARRIER, 2), alone(AFFINE))
ONWARDS = joined(alone(TAIL), some(CARRIER, 2), alone(steps(["layer", "linear", *of_role("Linear")], HERE)))
BRANCHES = joined(
    alone(steps(["layer", "linear"])),
    alone(steps(["norm", "idle"], HERE)),
    alone(steps(["layer", "linear", "norm", "idle"], st.just(2))),
    alone(steps(["sum", "sum", "cat"], HERE)),
)
SEPARATE = alone(st.one_of(ANY_ROW, ANY_ROW, ANY_PIECE, steps(["again"])))
FLAT = st.one_of(SEPARATE, BACK, ONWARDS, BRANCHES)


def several(parts: st.SearchStrategy[tuple[Step, ...]], most: int) -> st.SearchStrategy[tuple[Step, ...]]:
    """Up to so many lists of steps as one list."""
    return st.lists(parts, min_size=2, max_size=most).map(lambda found: sum(found, ()))


BLOCK = alone(
    st.builds(
        Step,
        st.just("block"),
        NUMBER,
        LATEST,
        OTHER,
        MARKED,
        several(FLAT, 3),
        st.sampled_from(["proven"] * 4 + [*STYLES]),
    )
)
OPTIONS = ("guards=False", "allow_copies=False", "allow_growth=True", "stack_parallel", "example_inputs")
RECIPES = st.builds(
    Recipe,
    several(st.one_of(FLAT, FLAT, FLAT, BLOCK), 5),
    st.sampled_from(SHAPES),
    st.sampled_from(["proven"] * 15 + [*STYLES]),
    st.sampled_from(OUTPUTS),
    st.sampled_from(["graph", "module"]),
    st.one_of(*[st.just(())] * 4, st.sampled_from(OPTIONS).map(lambda option: (option,))),
)
