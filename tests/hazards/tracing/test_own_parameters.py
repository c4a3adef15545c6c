"""Hazard 36: where the class is kept, its other methods find the parameters of their own module as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import Functional
from tests.support.helpers import Model, assert_equal, folds, reasons, trained, values


class ReadsOwnWeight(Functional):
    def other(self, x: Tensor) -> Any:
        return x.sum() + self.weight.norm()


class ReadsWhatWouldGo(Functional):
    def other(self, x: Tensor) -> Any:
        return x.sum() * self.gain


class ReadsShape(Functional):
    @property
    def sizes(self) -> Any:
        return self.gain.shape  # the gain would be None

    def other(self, x: Tensor) -> Any:
        return x.sum() * len(self.sizes)


class ReadsInHelper(Functional):
    def other(self, x: Tensor) -> Any:
        return x.sum() * self._helper()

    def _helper(self) -> Any:
        return getattr(self, "gain")  # noqa: B009 - another way to read it


class ReadsAnother(Functional):
    def other(self, x: Tensor) -> Any:
        return x.sum() * self.third


def functional(cls: type[Functional]) -> nn.Module:
    parameters = {"weight": values(4, 3, 1, 1), "gain": values(4, 1, 1), "third": values(1)}
    return trained(cls(**{name: nn.Parameter(value) for name, value in parameters.items()}))


@pytest.mark.parametrize("cls", [ReadsOwnWeight, ReadsWhatWouldGo, ReadsShape, ReadsInHelper])
def test_a_method_that_reads_a_parameter_which_would_change_keeps_it(cls: type[Functional]) -> None:
    model: Any = functional(cls)
    fused: Any = fx_fuse(model, structure="module")
    assert folds(fused) == []
    inputs = values(2, 3, 6, 6)
    assert torch.equal(model.other(inputs), fused.other(inputs))
    assert torch.equal(model(inputs), fused(inputs))
    assert folds(fx_fuse(model, structure="graph")) == ["mul"]


def test_a_method_that_reads_another_parameter_changes_nothing() -> None:
    model: Any = functional(ReadsAnother)
    fused: Any = fx_fuse(model, structure="module")
    inputs = values(2, 3, 6, 6)
    assert folds(fused) == ["mul"]
    assert torch.equal(model.other(inputs), fused.other(inputs))
    assert_equal(model(inputs).detach(), fused(inputs).detach())


class AsksForDevice(Functional):
    @property
    def device(self) -> torch.device:
        return self.weight.device


def test_a_method_that_asks_where_a_parameter_lies_changes_nothing() -> None:
    model: Any = functional(AsksForDevice)
    fused: Any = fx_fuse(model, structure="module")
    assert folds(fused) == ["mul"]
    assert fused.device == model.device


class Penalised(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).relu()

    def penalty(self) -> Tensor:
        return self.inner.weight.norm() + self.inner.gain.norm()


def test_a_method_of_the_parent_that_reads_a_parameter_keeps_it() -> None:
    model: Any = trained(Penalised(inner=functional(Functional)))
    fused: Any = fx_fuse(model, structure="module")
    assert folds(fused) == []
    assert torch.equal(model.penalty(), fused.penalty())


class SumsParameters(Model):
    """Cannot be traced, and reads the parameters of all that it holds."""

    def forward(self, x: Tensor) -> Tensor:
        scale = sum(parameter.sum() for parameter in self.parameters())
        return self.block(x) * scale if x.sum() < 1e9 else x


def test_untraced_code_that_reads_all_parameters_keeps_them() -> None:
    model = trained(SumsParameters(block=nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))))
    fused = fx_fuse(model)
    assert reasons(fused) == {("block.1", Reason.OPAQUE)}
    inputs = values(2, 3, 6, 6)
    assert torch.equal(model(inputs), fused(inputs))
