"""Models that are wrapped, scripted or quantized: what can fold does, and the rest is told as what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic

from fxfuse import Reason, Report, explain, fx_fuse
from tests.support.helpers import Model, assert_same, trained, values

pytestmark = [  # torch would rather have none of them
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.(jit|ao.quantization):DeprecationWarning"),
]
X = values(2, 3, 8, 8)


def in_a_trace(module: nn.Module) -> Any:
    return torch.jit.trace(module, values(2, 4, 6, 6))


def block(channels: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


class Forward(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.scripted(self.block(x))))


@pytest.mark.parametrize("x", [None, X], ids=["without inputs", "with inputs"])
@pytest.mark.parametrize("of", [torch.jit.script, in_a_trace])
def test_what_is_scripted_stops_nothing_around_it(of: Any, x: Tensor | None) -> None:
    parts = {"block": block(), "conv": nn.Conv2d(4, 4, 1), "norm": nn.BatchNorm2d(4)}
    model = trained(Forward(**parts, scripted=nn.Identity()))
    model.scripted = of(trained(block(4)))
    fused = fx_fuse(model, x)
    report = Report.of(fused)
    assert {d.path for d in report.folded} == {"block.1", "norm"}
    assert {d.path for d in report.norms_left} <= {"scripted.1"}  # nobody can look into it, but it runs
    assert_same(model, fused, X)


def test_a_norm_beside_a_quantized_layer_is_told_what_it_is() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model = quantize_dynamic(trained(layers).float(), {nn.Linear}, dtype=torch.qint8)
    for inputs in (None, torch.randn(2, 4)):
        (decision,) = explain(model, inputs).skipped
        assert decision.reason is Reason.NOT_FLOATING
        assert "weight of 0 is quantized" in decision.detail
        assert "fuse before you quantize" in decision.detail
    assert decision.downstream is Reason.NOT_FLOATING
    assert "weight of 2 is quantized" in decision.detail


def test_data_parallel_folds_and_its_advice_helps() -> None:
    model = nn.DataParallel(trained(block()))
    report = explain(model)
    assert [(d.path, d.evidence) for d in report.folded] == [("module.1", "assumed")]
    assert "example_inputs that reach it prove it" in report.folded[0].detail
    assert [d.evidence for d in explain(model, X).folded] == ["traced"]
    assert_same(model, fx_fuse(model, X), X)
