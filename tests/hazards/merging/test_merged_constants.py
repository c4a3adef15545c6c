"""Hazard 24: a merge takes constants in as a fold does: with a check where they might give a value more axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fxfuse import Report, fx_fuse
from tests.rules.merge_cases import IMAGE, TWO, Case
from tests.support.helpers import assert_same, values

if TYPE_CHECKING:
    from torch import Tensor


def test_a_check_stays_where_a_constant_might_give_more_axes() -> None:
    factor = values(1, 4, 1, 1)

    def scaled(m: Any, x: Tensor) -> Tensor:
        first: Tensor = m.a(x) * m.factor + m.b(x)
        return first

    model = Case("", scaled, TWO).model()
    model.register_buffer("factor", factor)
    fused = fx_fuse(model, rules=["merge_branches"])
    assert all(decision.assumed for decision in Report.of(fused).folded)
    assert_same(model, fused, values(*IMAGE))
    with pytest.raises(ValueError, match="4 axes"):
        fused(values(*IMAGE[1:]))
