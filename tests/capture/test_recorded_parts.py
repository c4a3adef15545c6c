"""Parts of a recorded model that are traced, and parts that no example reaches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from fxfuse import Inputs, Reason, Report, fx_fuse
from fxfuse.capture.recording import Recording
from fxfuse.pipeline import run
from fxfuse.pipeline.recorded import capture_runs
from fxfuse.report.reasons import Refusal
from tests.capture.test_recording import Generated, X, assert_folds, branch, layers
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from fxfuse.capture.captured import Capture


class Merging(Model):
    """The sum of two layers, in a block that can be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.one(x) + self.other(x))


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = branch(x)
        return self.block(self.block(x))


def block() -> Merging:
    return Merging(one=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)), other=nn.Conv2d(3, 3, 1))


def test_a_traced_forward_that_is_called_twice_is_edited_once() -> None:
    result = assert_folds(Twice(block=block()), "block.one.1", "block.other")
    assert sum(isinstance(module, nn.Conv2d) for module in result.modules()) == 1
    assert {d.evidence for d in Report.of(result).folded} == {"traced"}


class Optional(Model):
    def forward(self, x: Tensor, late: bool = False) -> Tensor:
        x = branch(x)
        return self.second(x) if late else self.first(x)


def test_parts_that_no_example_reaches_fold_as_without() -> None:
    model = trained(Optional(first=nn.Sequential(*layers().values()), second=nn.Sequential(*layers().values())))
    without, result = fx_fuse(model), fx_fuse(model, X)
    assert len(Report.of(result).folded) >= len(Report.of(without).folded)
    for late in (True, False):
        torch.testing.assert_close(result(X, late), model(X, late), rtol=1e-11, atol=1e-11)


def test_a_recording_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Recording, inputs: Inputs) -> None:  # noqa: ARG001
        raise KeyError("broken")

    monkeypatch.setattr(Recording, "run", fail)
    model = trained(Generated(**layers()))
    report = Report.of(fx_fuse(model, X))
    assert "could not be watched" in report.notes[0]
    assert "could not be watched" in str(report)
    assert len(report.folded) >= len(Report.of(fx_fuse(model)).folded)


def test_a_run_never_leaves_more_norms_than_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps_all(static: Capture, *others: Any) -> Capture:
        captured = capture_runs(static, *others)
        return replace(captured, frozen={m: Refusal(Reason.OWN_FORWARD, value="it") for m in static.paths})

    model = trained(Sequence(blocks=nn.Sequential(*layers().values())))
    assert not Report.of(fx_fuse(model, X)).norms_left
    monkeypatch.setattr(run, "capture_runs", keeps_all)
    result = fx_fuse(model, X)
    report = Report.of(result)
    assert not report.norms_left
    assert "By its code alone more of the model folds" in report.notes[0]
    torch.testing.assert_close(result(X), model(X), rtol=1e-11, atol=1e-11)


class Sequence(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(branch(x))


RUNS: list[Any] = []


class Counting(Model):
    def forward(self, x: Tensor) -> Tensor:
        RUNS.extend([x] * (not is_fx_symbolic_tracing()))
        return self.blocks(branch(x))


@pytest.mark.parametrize("left", [0, 1])
def test_a_model_runs_three_times_at_most(left: int) -> None:
    model = trained(
        Counting(blocks=nn.Sequential(*layers().values(), nn.ReLU(), nn.BatchNorm2d(4))[: 4 if left else 2])
    )
    RUNS.clear()
    report = Report.of(fx_fuse(model, X))
    assert (len(report.folded), len(report.norms_left)) == (1, left)
    assert len(RUNS) == 3  # by itself, watched, and as the result
