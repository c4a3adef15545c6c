"""The report: what was folded into what, and why the rest was not."""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Reason, Report, explain, fx_fuse
from fxfuse.report.cost import Cost
from tests.support.helpers import Model, Structure, trained, unchanged, values
from tests.support.samples import error_of


class Mixed(nn.Module):
    """One norm that folds, one that does not, one that is never called, and a convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.late = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.late(self.stem(x))
        return self.norm(self.shared(y)) * self.shared(y) + y.amax()


def mixed() -> Mixed:
    return trained(Mixed())


def test_every_norm_has_a_line() -> None:
    report = Report.of(fx_fuse(mixed()))
    assert {(d.path, d.into) for d in report.folded} == {("stem.1", ("stem.0",)), ("norm", ("shared",))}
    assert {(d.path, d.reason) for d in report.skipped} == {
        ("late", Reason.NOT_LINEAR),
        ("unused", Reason.NOT_CALLED),
    }
    assert {d.kind for d in report.decisions} == {"BatchNorm2d"}
    assert all(d.folded is (d.reason is None) for d in report.decisions)


def test_the_table() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    table = [" ".join(line.split()) for line in str(Report.of(fx_fuse(model))).splitlines()]
    assert set(table.pop(1)) == {"-", " "}
    assert table == [
        "operation kind result evidence why",
        "1 BatchNorm2d -> 0 traced",
        "3 BatchNorm2d stays it follows 2, which is neither a convolution nor a linear layer; swap",
        "the order of the layers if you can retrain, or leave it. Downstream: it",
        "is read by the output, which is neither a convolution nor a linear layer",
        "",
        "1 folded, 1 norm left",
    ]


def test_the_table_names_costs_and_assumptions() -> None:
    text = str(Report.of(fx_fuse(mixed())))
    assert text.splitlines()[0].split() == ["operation", "kind", "result", "evidence", "why"]
    assert "stem.1" in text
    assert "-> stem.0" in text
    copied = (4 * 4 + 4) * 8
    assert f"shared weights untied: {copied} bytes" in text
    assumed = str(Report.of(fx_fuse(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval())))
    assert "1 fold on an assumption (example_inputs or the exported program prove it)" in assumed
    assert "assumes 2 axes" in assumed


def test_a_model_that_amplifies_rounding_is_told() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).float()
    model.state_dict()["0.bias"].fill_(1e7)
    model.state_dict()["1.running_mean"].fill_(1e7)
    report = explain(model, values(2, 3, 6, 6, dtype=torch.float32))
    assert [d.path for d in report.folded] == ["1"]
    (note,) = report.notes
    assert note.startswith("The model amplifies rounding, so that a comparison on the example inputs (off by ")


def test_explaining_changes_nothing_whatever_it_is_asked() -> None:
    graph_module = torch.fx.symbolic_trace(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    with unchanged(graph_module):
        assert explain(graph_module, inplace=True)


def test_copied_bytes() -> None:
    report = Report.of(fx_fuse(mixed()))
    assert report.copied_bytes == (4 * 4 + 4) * 8
    assert {d.path: d.copied_bytes for d in report.folded} == {"stem.1": 0, "norm": report.copied_bytes}


def test_an_empty_report_is_false_and_prints() -> None:
    report = Report.of(fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()))
    assert not report
    assert report.decisions == ()
    assert str(report) == "0 folded, 0 norms left"


def test_it_is_true_if_anything_was_folded() -> None:
    assert Report.of(fx_fuse(mixed()))
    assert not Report.of(fx_fuse(nn.Sequential(nn.BatchNorm2d(3)).eval()))


def test_reasons_are_counted() -> None:
    assert explain(mixed()).by_reason() == Counter({Reason.NOT_LINEAR: 1, Reason.NOT_CALLED: 1})


def test_it_is_plain_data_for_machines(structure: Structure) -> None:
    report = Report.of(fx_fuse(mixed(), structure=structure))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["structure"] == structure
    assert len(data["folded"]) == len(report.folded)
    assert {(d["path"], d["reason"]) for d in data["skipped"]} >= {("late", "NOT_LINEAR"), ("unused", "NOT_CALLED")}
    keys = {"outcome", "rule", "path", "kind", "into", "reason", "downstream", "detail", "assumed", "copied_bytes"}
    keys |= {"before", "after", "evidence", "recorded", "subject"}
    assert all(d.keys() == keys for d in (*data["folded"], *data["skipped"]))
    assert data["copied_bytes"] == report.copied_bytes
    assert isinstance(data["renamed"], dict)


@pytest.mark.parametrize("sizes", [True, False], ids=["sizes are known", "they are not"])
def test_what_a_merge_saves_is_plain_data_as_well(*, sizes: bool) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.Conv2d(5, 2, 3, padding=1)))
    program = torch.export.export(model, (values(2, 3, 6, 6),))
    report = Report.of(fx_fuse(program) if sizes else fx_fuse(model))
    (merged,) = json.loads(json.dumps(report.to_dict()))["folded"]
    before = {"multiply_adds": 36 * (15 + 90) if sizes else None, "parameters": 15 + 90 + 2, "kernels": 2}
    after = {"multiply_adds": 36 * 54 if sizes else None, "parameters": 54 + 2, "kernels": 1}
    assert (merged["before"], merged["after"]) == (before, after)
    assert report.saved == Cost(36 * (15 + 90 - 54) if sizes else None, 15 + 90 - 54, 1)


def test_a_function_that_took_a_norm_in_is_told_by_its_name(structure: Structure) -> None:
    class Functional(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(nn.functional.conv2d(x, self.weight, self.bias))

    parameters = {"weight": nn.Parameter(values(4, 3, 1, 1)), "bias": nn.Parameter(values(4))}
    model = trained(Functional(**parameters, bn=nn.BatchNorm2d(4)))
    (decision,) = Report.of(fx_fuse(model, structure=structure)).folded
    assert decision.into == ("conv2d",)
    assert decision.copied_bytes == 0  # nobody else reads them


def test_every_sentence_of_the_report_is_filled_in() -> None:
    for decision in explain(mixed()).skipped:
        assert "{" not in decision.detail
        assert "unknown" not in decision.detail


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, lambda fused: fused.float(), lambda fused: fused.eval()])
def test_it_stays_with_the_result(copies: Any, structure: Structure) -> None:
    fused = fx_fuse(mixed(), structure=structure)
    assert Report.of(copies(fused)) == Report.of(fused)


def test_a_report_of_something_else_is_an_error() -> None:
    others: list[object] = [mixed(), None, 3, "fused", torch.fx.symbolic_trace(nn.ReLU())]
    for other in others:
        sentence = error_of(functools.partial(Report.of, other))
        assert type(other).__name__ in sentence
        assert "fx_fuse" in sentence


def test_explain_says_what_fx_fuse_does_and_does_nothing(structure: Structure) -> None:
    model = mixed()
    with unchanged(model):
        report = explain(model, structure=structure)
    assert report == Report.of(fx_fuse(model, structure=structure))
    assert explain(model, values(2, 3, 6, 6)).decisions


def test_explain_raises_what_fx_fuse_raises() -> None:
    with pytest.raises(FuseError, match="training mode"):
        explain(mixed().train())


def test_names_that_had_to_change_are_told() -> None:
    class Tied(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(x)) + self.conv(x)

    fused = fx_fuse(trained(Tied(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4))))
    renamed = Report.of(fused).renamed
    assert set(renamed) <= {"conv.weight", "conv.bias"}
    assert renamed
    assert set(renamed.values()) <= set(fused.state_dict())
