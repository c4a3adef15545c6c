"""Whole numbers beside floats are floats: arithmetic with them folds, and of a value of whole numbers nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, explain, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Masked(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x) * self.mask)
        return y


class Before(Model):
    """Arithmetic of whole numbers, which may run over, before the layer."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv((x * self.mask).double())
        return y


MASKS: list[Callable[[], Tensor]] = [
    lambda: torch.tensor([1, 0, 3, -2]),
    lambda: torch.tensor([1, 0, 3, 2], dtype=torch.uint8),
    lambda: torch.tensor([True, False, True, True]),
]


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_of_whole_numbers_goes_into_the_layer(structure: Structure, mask: Callable[[], Tensor]) -> None:
    model = trained(Masked(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), mask=mask().reshape(4, 1, 1)))
    model.mask = mask().reshape(4, 1, 1)  # not converted
    assert_fuses(model, values(2, 3, 6, 6), folded=["mul", "norm"], structure=structure)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_stays_that_of_the_floats(dtype: torch.dtype) -> None:
    model = trained(Masked(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), mask=torch.tensor(3)))
    model = model.to(dtype)
    x = values(2, 3, 6, 6, dtype=dtype)
    fused = fx_fuse(model)
    assert fused(x).dtype == model(x).dtype == dtype


def test_whole_numbers_that_run_over_stay() -> None:
    model = trained(Before(conv=nn.Conv2d(3, 4, 1), mask=torch.tensor([1, 2, 3])))
    model.mask = torch.tensor([1, 2, 3], dtype=torch.uint8).reshape(3, 1, 1)
    x = torch.arange(2 * 3 * 49, dtype=torch.uint8).reshape(2, 3, 7, 7)
    for fused in (fx_fuse(model), fx_fuse(torch.export.export(model, (x,))).module()):
        assert_same(model, fused, x)
    assert folds(fx_fuse(model)) == []


def test_the_reason_says_what_to_do() -> None:
    class Mixed(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(torch.conv2d(x, self.weight))
            return y

    model = trained(Mixed(weight=nn.Parameter(values(4, 3, 1, 1)), norm=nn.BatchNorm2d(4)))
    model.weight.data = model.weight.data.to(torch.complex128)
    (decision,) = explain(model).norms_left
    assert decision.reason is Reason.NOT_FLOATING
    assert "make floats of it" in decision.detail
