"""Hazards 24, 25: ``merge_concatenated``: layers of one value that are put side by side become one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fxfuse import Reason
from tests.rules.merge_cases import STACKS, TWO, Case
from tests.rules.merge_checks import assert_merges, assert_merges_in_every_form, assert_stays

if TYPE_CHECKING:
    from tests.support.helpers import Structure

R = Reason
REFUSED: list[tuple[Case, Reason, str]] = [
    (Case("other sizes behind one another", lambda m, x: torch.cat([m.a(x), m.b(x)], 1), TWO, (2, 0, 1)),
     R.WOULD_GROW, "multiply-adds"),
]  # fmt: skip


@pytest.mark.parametrize("case", STACKS, ids=lambda case: case.name)
def test_merges(case: Case, structure: Structure) -> None:
    assert_merges(case, structure)


@pytest.mark.parametrize("case", STACKS, ids=lambda case: case.name)
def test_merges_in_every_form(case: Case) -> None:
    assert_merges_in_every_form(case)


@pytest.mark.parametrize(("case", "reason", "words"), REFUSED, ids=[case.name for case, _, _ in REFUSED])
def test_refused(case: Case, reason: Reason, words: str, structure: Structure) -> None:
    assert_stays(case, reason, words, structure)
