"""Hazards 24, 25: ``merge_chain``: a layer and the layer that reads it alone become one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torch import nn

from fxfuse import Reason
from tests.rules.merge_cases import CHAINS, CHAINS_OF_MODULES, SEQUENCE, Case, conv
from tests.rules.merge_checks import assert_merges, assert_merges_in_every_form, assert_stays

if TYPE_CHECKING:
    from tests.support.helpers import Structure

R = Reason
REFUSED: list[tuple[Case, Reason, str]] = [
    (Case("1x1 with a bias, 3x3 with a border", lambda m, x: m.b(m.a(x)),
          {"a": conv(4, 8, 1), "b": conv(8, 3, 3, padding=1)}, (2, 0, 0)), R.MISALIGNED, "the bias of the first"),
    (Case("3x3, 3x3 with a border", lambda m, x: m.b(m.a(x)),
          {"a": conv(4, 8, 3, bias=False), "b": conv(8, 1, 3, padding=1)}, (2, 0, 0)), R.MISALIGNED, "the second pads"),
    (Case("a bottleneck", lambda m, x: m.b(m.a(x)), {"a": conv(4, 1, 1), "b": conv(1, 4, 3)}, (2, 0, 0)),
     R.WOULD_GROW, "multiply-adds"),
    (Case("a bottleneck of linear layers", lambda m, x: m.b(m.a(x)),
          {"a": lambda: nn.Linear(4, 1), "b": lambda: nn.Linear(1, 4)}, (2, 0, 0), SEQUENCE), R.WOULD_GROW, "to 16"),
]  # fmt: skip


@pytest.mark.parametrize("case", CHAINS + CHAINS_OF_MODULES, ids=lambda case: case.name)
def test_merges(case: Case, structure: Structure) -> None:
    assert_merges(case, structure)


@pytest.mark.parametrize("case", CHAINS, ids=lambda case: case.name)
def test_merges_in_every_form(case: Case) -> None:
    assert_merges_in_every_form(case)


@pytest.mark.parametrize(("case", "reason", "words"), REFUSED, ids=[case.name for case, _, _ in REFUSED])
def test_refused(case: Case, reason: Reason, words: str, structure: Structure) -> None:
    assert_stays(case, reason, words, structure)
