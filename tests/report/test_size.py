"""The line that says how large a model is, before and after."""

from __future__ import annotations

import html
import json

import pytest
import torch
from torch import nn

from fxfuse import explain, fx_fuse, html_report
from fxfuse.report.report import Report
from fxfuse.report.size import Size, summary
from tests.support.helpers import trained, unchanged, values


def net() -> nn.Module:
    layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return trained(nn.Sequential(*layers))


X = values(2, 3, 8, 8)
# By hand: 2 images of 6 x 6 outputs; 4 * 27 and 2 * 4 products for each; two operations for a product.
FLOPS = 2 * 36 * (4 * 27 + 2 * 4) * 2


def test_what_a_run_shows() -> None:
    model = net()
    with unchanged(model):
        report = explain(model, X)
    assert report.sizes is not None
    before, after = report.sizes
    assert (before.layers, before.parameters, before.flops) == (5, 108 + 8 + 10 + 4, FLOPS)
    assert (before.norms, before.kernels) == (2, 5)
    assert (after.layers, after.parameters, after.flops) == (3, 108 + 4 + 10, FLOPS)
    assert (after.norms, after.kernels) == (0, 3)
    line = f"5 -> 3 layers, 130 -> 122 parameters, {FLOPS / 1e3:.3g} kFLOPs, 2 -> 0 norms, 5 -> 3 kernels"
    assert line in str(report).splitlines()
    assert json.loads(json.dumps(report.to_dict()))["sizes"][0]["flops"] == FLOPS
    assert html.escape(line) in html_report.page(model, X)


def test_without_inputs_only_what_the_model_has_is_told() -> None:
    assert "5 -> 3 layers, 130 -> 122 parameters" in str(explain(net())).splitlines()
    kept = explain(net(), X, structure="module")
    assert "5 -> 3 layers" in str(kept), "an identity is no layer"


def test_an_exported_program_has_no_layers_and_runs() -> None:
    text = str(explain(torch.export.export(net(), (X,)), X))
    assert f"130 -> 122 parameters, {FLOPS / 1e3:.3g} kFLOPs, 2 -> 0 norms, 5 -> 3 kernels" in text.splitlines()


def test_fusing_alone_counts_nothing() -> None:
    assert Report.of(fx_fuse(net(), X)).sizes is None


@pytest.mark.parametrize(
    ("flops", "told"),
    [(0, "0 FLOPs"), (80, "80 FLOPs"), (1_234, "1.23 kFLOPs"), (4_500_000, "4.5 MFLOPs"), (120_000_000, "0.12 GFLOPs")],
)
def test_operations_have_a_unit_of_their_size(flops: int, told: str) -> None:
    assert f" {told}" in summary(Size(1, 1, flops), Size(1, 1, flops))


def test_one_of_a_thing_is_in_the_singular() -> None:
    assert (
        summary(Size(1, 12, None, 1, 3), Size(1, 12, None, 0, 1))
        == "1 layer, 12 parameters, 1 -> 0 norms, 3 -> 1 kernels"
    )
