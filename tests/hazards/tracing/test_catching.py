"""Hazard 33: a forward that goes on after exceptions takes another way for other inputs."""

from __future__ import annotations

import pytest
from torch import nn

from fxfuse import Reason, explain, fx_fuse
from tests.hazards.blocks import assert_recorded, assert_right, layers, sequence
from tests.hazards.tracing import catching
from tests.support.helpers import Model, folds, trained, values

INPUTS = [values(*shape) for shape in ((2, 3, 6, 6), (6, 3, 6, 6))]
INPUTS += [*(sign * x.abs() for x in INPUTS for sign in (-1, 1)), values(1, 3, 4, 5)]
CATCHING = [
    *(catching.CatchesAnAssertion, catching.CatchesInAHelper, catching.SuppressesAnAssertion),
    *(catching.CatchesEverything, catching.OtherName, catching.ByAManager, catching.ByAGenerator, catching.ByFinally),
]


@pytest.mark.parametrize("cls", CATCHING)
def test_what_depends_on_an_exception_that_is_caught_stays(cls: type[Model]) -> None:
    model = trained(cls(**layers()))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert not folds(fused)
    assert_recorded(model, "bn", example=INPUTS[0].abs(), inputs=INPUTS)


def test_a_question_that_only_a_proxy_cannot_answer() -> None:
    model = trained(catching.InAMethod(**layers()))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)


def test_a_layer_for_other_inputs_is_still_there() -> None:
    model = trained(catching.Fallback(**layers(), other=nn.Conv2d(5, 3, 3)))
    fused = fx_fuse(model)
    assert_right(model, fused, [*INPUTS, values(2, 5, 6, 6)])


def test_a_branch_that_catches_lets_the_rest_fold() -> None:
    model = trained(nn.Sequential(sequence(), catching.CatchesAnAssertion(**layers())))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert folds(fused) == ["0.1"]


def test_what_follows_a_module_that_was_left_whole_says_why() -> None:
    model = trained(nn.Sequential(catching.CatchesAnAssertion(**layers()), nn.BatchNorm2d(3)))
    (decision,) = [d for d in explain(model).skipped if d.path == "1"]
    assert decision.reason is Reason.NOT_LINEAR
    assert "it follows 0 (left whole: it catches exceptions), which" in decision.detail


def test_an_exception_that_is_only_told_forbids_nothing() -> None:
    model = trained(catching.TellsInOtherWords(**layers()))
    assert_recorded(model, "bn", example=INPUTS[0], inputs=INPUTS, branches=False)
    assert_right(model, fx_fuse(model), INPUTS)
