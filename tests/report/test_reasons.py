"""Every reason: provoked through the public functions, and told in a sentence with a path and advice."""

from __future__ import annotations

import pytest
import torch

from fxfuse import Reason, Report, explain, fx_fuse
from fxfuse.operators.norms import BatchNorm
from tests.report.reason_cases import CASES, Case
from tests.report.reason_models import layers, net
from tests.support.helpers import unchanged


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason.name)
def test_a_reason_is_given_with_its_path_and_its_advice(case: Case) -> None:
    model = case.make()
    with unchanged(model):
        report = Report.of(fx_fuse(model, **case.options))
    decisions = {d.path: d for d in report.skipped if d.reason is case.reason}
    assert case.path in decisions, str(report)
    sentence = decisions[case.path].detail
    assert all(word in sentence for word in case.words), sentence
    assert_readable(sentence)
    assert case.path in str(report)
    assert explain(model, **case.options).by_reason()[case.reason] >= 1


def assert_readable(sentence: str) -> None:
    """A finding and an advice, with every fact filled in."""
    assert ";" in sentence
    assert "{" not in sentence
    assert "an unknown" not in sentence
    assert not sentence.rstrip().endswith((".", ";"))


def test_a_constant_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine need not have two devices, so the norm pretends to be elsewhere."""
    elsewhere = torch.empty(4, device="meta", dtype=torch.float64)
    monkeypatch.setattr(BatchNorm, "tensors", property(lambda _view: (elsewhere,)))
    (decision,) = explain(net(layers())).skipped
    assert decision.reason is Reason.MIXED_DEVICE
    assert "it is on meta, " in decision.detail
    assert " on cpu;" in decision.detail
    assert "block.conv" in decision.detail
    assert_readable(decision.detail)


def test_every_reason_has_a_test() -> None:
    assert {case.reason for case in CASES} | {Reason.MIXED_DEVICE} == set(Reason)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_every_sentence_ends_in_advice(reason: Reason) -> None:
    finding, _, advice = reason.sentence().partition(";")
    assert len(finding.split()) >= 4
    assert len(advice.split()) >= 4
    assert "\n" not in reason.sentence()


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_fact_that_nobody_gave_leaves_a_sentence(reason: Reason) -> None:
    assert "{" not in reason.sentence()
    assert "block.conv" in reason.sentence(value="block.conv") or "{value}" not in reason.value
