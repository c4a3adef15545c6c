"""The negative cases of every reason, in every form of graph: the same reason, or a known exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from fxfuse import Reason
from tests.forms.exceptions import FOLDED, INPUTS, NOT_CAPTURED, NOT_TOLD, REASONS, expected
from tests.report.reason_cases import CASES, Case
from tests.report.reason_models import IMAGE
from tests.support.graph_forms import FORMS
from tests.support.helpers import assert_equal, run, values

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tests.support.graph_forms import Form, Fused

# The traced form is what test_reasons.py tests.
OTHERS = [name for name in FORMS if name != "traced"]
# What torch raises where a model cannot be captured: it runs the model, or pretends to.
FAILURES = (RuntimeError, NotImplementedError, torch._dynamo.exc.TorchDynamoException)
# These overflow, cancel, or change themselves with every run, which is no fault of a fold.
NOT_COMPARED = {Reason.NOT_FINITE, Reason.DIFFERS, Reason.MUTATED}


def image(model: nn.Module) -> Tensor:
    """An image of the dtype of the model."""
    return values(*IMAGE, dtype=next(model.parameters()).dtype)


def outcome(fused: Fused) -> Reason | str:
    """The reason of what stays, or what happened instead."""
    skipped = {decision.reason for decision in fused.report.skipped}
    if not skipped:
        return FOLDED if fused.report.folded else NOT_TOLD
    (reason,) = skipped
    assert reason is not None
    return reason


def tried(case: Case, model: nn.Module, form: Form) -> Reason | str:
    """What becomes of a case in a form; whatever it is, the result is right."""
    missing = {"structure", *(["example_inputs"] if form.name in INPUTS else [])}
    options: dict[str, Any] = {name: value for name, value in case.options.items() if name not in missing}
    x = image(model)
    try:
        fused = form.fuse(model, (x,), **options)
    except FAILURES:
        return NOT_CAPTURED
    if case.reason not in NOT_COMPARED:
        assert_equal(run(model, (x,)), fused.run(x), rtol=1e-12 if x.dtype is torch.float64 else 1e-5)
    return outcome(fused)


@pytest.mark.filterwarnings("ignore:.*(deprecated|Casting complex)")
@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda case: case.reason.name,
)
def test_a_reason_is_the_same_in_every_form(case: Case) -> None:
    model = case.make()
    outcomes = {name: tried(case, model, FORMS[name]) for name in OTHERS}
    assert outcomes == {name: expected(case.reason, name) for name in OTHERS}


def test_every_exception_has_a_sentence_and_a_case() -> None:
    assert all(e.why.endswith(".") and len(e.why.split()) >= 8 for e in REASONS)
    assert {e.reason for e in REASONS} <= {case.reason for case in CASES}
    assert all(e.instead is not e.reason for e in REASONS)
    assert len({(e.reason, form) for e in REASONS for form in e.forms}) == sum(len(e.forms) for e in REASONS)
