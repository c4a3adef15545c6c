"""The totals of a report and the table, as users see them: norms that stay, refused merges, assumed folds."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import Tensor, nn

from fxfuse import Report, explain, fx_fuse, lower
from tests.report.test_report import mixed
from tests.support.helpers import Model, trained, values


class Branches(Model):
    """A norm that folds, and two convolutions of other strides, which cannot become one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.one(y)[..., :2, :2] + self.two(y)


def test_refused_merges_are_no_norms_that_are_left() -> None:
    layers = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    convs = {"one": nn.Conv2d(4, 4, 1), "two": nn.Conv2d(4, 4, 1, stride=2)}
    report = explain(trained(Branches(**layers, **convs)))
    assert report.ok
    assert not report.norms_left
    assert report.skipped == report.refused_merges != ()
    text = str(report)
    assert text.index("-> conv") < text.index("Layers that could not become one:") < text.index("1 folded, 0 ")
    assert text.splitlines()[-1] == "1 folded, 0 norms left; 1 merge refused"
    assert (report.to_dict()["ok"], report.to_dict()["norms_left"]) == (True, 0)


def test_layer_norms_that_were_looked_at_are_told_apart_from_norms() -> None:
    report = explain(trained(nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.LayerNorm(4))))
    assert report.ok
    assert [d.kind for d in report.skipped] == ["LayerNorm", "LayerNorm"]
    assert str(report).splitlines()[-1] == "0 folded, 0 norms left; the constants of 2 operations stay"


def test_a_norm_that_is_left_is_not_ok() -> None:
    report = explain(mixed())
    assert not report.ok
    assert {d.path for d in report.norms_left} == {"late", "unused"}


def test_short_for_a_debugger_and_one_block_for_a_notebook() -> None:
    report = explain(mixed())
    assert repr(report) == "<Report: 2 folded, 2 norms left; shared weights untied: 160 bytes>"
    shown = report._repr_html_()
    assert "<td>stem.1" in shown
    assert "<td>-&gt; stem.0" in shown
    assert shown.index("2 folded, 2 norms left") < shown.index("<table>")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_takes_the_width_that_there_is_and_breaks_no_name(width: int) -> None:
    long = "a_block_with_a_name_that_is_longer_than_any_column"
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.BatchNorm2d(4))
    report = explain(trained(nn.Sequential(OrderedDict({long: layers}))))
    text = report.text(width)
    for path in ("0", "1", "2", "3"):
        assert f"{long}.{path}" in text
    assert max(map(len, text.splitlines())) <= max(width, 4 * len(long))  # three columns hold the name
    assert len(report.text(2 * width).splitlines()) <= len(text.splitlines())


def test_what_is_too_wide_for_a_table_becomes_a_paragraph_for_each_operation() -> None:
    long = "features_of_the_backbone_of_the_detector"
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    report = explain(trained(nn.Sequential(OrderedDict({long: layers}))), values(1, 3, 8, 8)).noted("A note. " * 20)
    text = report.text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{long}.1 BatchNorm2d -> {long}.0 traced" in " ".join(text.split())
    assert f"{long}.3  BatchNorm2d  stays\n    it follows {long}.2," in text


def test_every_assumed_fold_says_what_would_prove_it() -> None:
    """Also the one whose copy turns out to be free, and those below code that is not traced."""

    class Untraced(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) if x.sum() > 0 else self.block(-x)

    block = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    for model, proof in (
        (trained(Untraced(block=block)), "example_inputs that reach it prove it"),
        (trained(block), "example_inputs prove it"),
    ):
        report = explain(model)
        assert len(report.folded) == 2
        assert all(d.evidence == "assumed" and proof in d.detail for d in report.folded)
        assert "2 folds on an assumption (example_inputs or the exported program prove it)" in str(report)
        proven = explain(model, values(5, 3))
        assert not any(d.assumed for d in proven.folded)
        assert "assumption" not in str(proven)
        assert "assumed" not in str(proven)


def test_a_notebook_shows_the_kernels_of_a_lowered_model_too() -> None:
    report = Report.of(lower(fx_fuse(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).float())))
    shown = report._repr_html_()
    assert shown.index("<td>BatchNorm2d") < shown.index("kernels: 1, operations taken in: 1") < shown.index("<td>relu")
