"""Random models in which affines pass other operations on their way."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.random_carriers import CARRIERS
from tests.random_models import ANY, NUMBER, PAIR, SINGLE, Step, shapes

CARRIER = st.builds(Step, st.sampled_from(list(CARRIERS)), NUMBER, ANY, ANY)


def chain(first: list[str], last: list[str]) -> st.SearchStrategy[tuple[Step, ...]]:
    """An operation, a few carriers behind it, and another operation."""
    ends = (st.builds(Step, st.sampled_from(kinds), NUMBER) for kinds in (first, last))
    latest = CARRIER.map(lambda step: Step(step.kind, step.number))
    return st.tuples(next(ends), st.lists(latest, max_size=3), next(ends)).map(lambda s: (s[0], *s[1], s[2]))


BACK = chain(["conv", "f.conv", "c.linear", "transposed"], ["norm", "f.norm", "f.scale", "f.shift"])
ONWARDS = chain(["norm", "f.norm", "c.layer_norm", "c.group_norm"], ["c.linear", "c.valid", "f.conv"])


WITH_CARRIERS = shapes(st.one_of(PAIR, SINGLE, CARRIER.map(lambda step: (step,)), BACK, ONWARDS))
