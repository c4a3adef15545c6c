"""Exported programs with all kinds of inputs and outputs, and with conditional parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report
from tests.forms.programs import assert_program_fuses, fused, program, saved_and_loaded
from tests.support.graph_reading import count_norms
from tests.support.helpers import Model, assert_equal, run, trained, values
from tests.support.samples import only

IMAGE = (2, 3, 6, 6)


def layers(**others: Any) -> dict[str, Any]:
    return {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), **others}


class Last(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Two(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bn(self.conv(x)), self.bn2(self.conv2(x))


class Same(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.bn(self.conv(x))
        return y, y


class Named(Model):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"features": self.bn(self.conv(x)), "others": [torch.relu(x), None, 3]}


@pytest.mark.parametrize(("cls", "folds"), [(Last, 1), (Two, 2), (Same, 1), (Named, 1)])
def test_outputs_that_are_the_result_of_a_norm(cls: type[Model], folds: int, decomposed: bool) -> None:
    model = trained(cls(**layers(conv2=nn.Conv2d(3, 4, 1), bn2=nn.BatchNorm2d(4))))
    result = assert_program_fuses(model, values(*IMAGE), folds=folds, decomposed=decomposed)
    assert count_norms(result.graph_module) == 0
    x = values(*IMAGE)
    assert_equal(run(model, (x,)), run(saved_and_loaded(result).module(), (x,)))


class Keywords(Model):
    def forward(self, x: Tensor, *, scale: Tensor, more: dict[str, Tensor]) -> Tensor:
        return self.bn(self.conv(x)) * scale + more["shift"]


def test_keyword_arguments(decomposed: bool) -> None:
    model = trained(Keywords(**layers()))
    x, named = values(*IMAGE), {"scale": values(4, 1, 1), "more": {"shift": values(1)}}
    given = torch.export.export(model, (x,), named)
    result = fused(given.run_decompositions() if decomposed else given)
    assert len(Report.of(result).folded) == 1
    with torch.no_grad():
        assert_equal(model(x, **named), result.module()(x, **named))


@pytest.mark.parametrize("strict", [False, True])
def test_strict_export(strict: bool) -> None:
    model, x = trained(Named(**layers())), values(*IMAGE)
    result = fused(torch.export.export(model, (x,), strict=strict))
    assert only(Report.of(result).folded).path == "bn"
    assert_equal(run(model, (x,)), run(result.module(), (x,)))


class Conditional(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv(x)))
        return torch.cond(x.sum() > 0, self.inner, torch.tanh, (y,))

    def inner(self, y: Tensor) -> Tensor:
        return self.bn2(self.conv2(y))


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:.*deprecated")
def test_a_conditional_part(decomposed: bool) -> None:
    model = trained(Conditional(**layers(conv2=nn.Conv2d(4, 4, 1), bn2=nn.BatchNorm2d(4))))
    x = values(*IMAGE)
    result = fused(program(model, x, decomposed=decomposed))
    report = Report.of(result)
    assert (len(report.folded), report.skipped, report.copied_bytes) == (2, (), 0)
    for other in (x, x.abs(), -x.abs()):
        assert_equal(run(model, (other,)), run(result.module(), (other,)))
        assert_equal(run(model, (other,)), run(saved_and_loaded(result).module(), (other,)))


def test_modules_with_names_that_are_no_identifiers(decomposed: bool) -> None:
    """As in torchvision's regnets, which name their blocks block1-0."""
    model = nn.Sequential()
    model.add_module("block-1", nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    assert_program_fuses(trained(model), values(*IMAGE), folds=1, decomposed=decomposed)
