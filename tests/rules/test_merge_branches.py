"""Hazards 24, 25: ``merge_branches``: layers and norms of one value whose results are added become one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rules.merge_cases import SUMS, SUMS_OF_MODULES, Case
from tests.rules.merge_checks import assert_merges, assert_merges_in_every_form

if TYPE_CHECKING:
    from tests.support.helpers import Structure


@pytest.mark.parametrize("case", SUMS + SUMS_OF_MODULES, ids=lambda case: case.name)
def test_merges(case: Case, structure: Structure) -> None:
    assert_merges(case, structure)


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case.name)
def test_merges_in_every_form(case: Case) -> None:
    assert_merges_in_every_form(case)
