"""Where the class is kept, its other methods find the parameters of their own module as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.helpers import Model, assert_equal, folds, trained, values


class Functional(Model):
    """Its convolution and its gain are functions of its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight) * self.gain


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
