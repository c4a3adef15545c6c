"""Hazard 28: a default device that the user has set is for the user's tensors, and not for those that a fold makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.rules.merge_cases import IMAGE, TWO, Case, conv, kernels, pool, same
from tests.support.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure


class Arithmetic(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize("function", [lambda y: y * 2, lambda y: -y, lambda y: 5 - y, lambda y: y / 3])
def test_numbers_fold(function: Callable[[Tensor], Tensor], structure: Structure) -> None:
    model = trained(Arithmetic(conv=nn.Conv2d(3, 4, 1), function=function))
    with torch.device("meta"):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))
    assert len(folds(fused)) == 1


@pytest.mark.parametrize(
    ("function", "layers"),
    [
        (lambda m, x: 2 * (m.a(x) + m.b(x)) + x, TWO),
        (lambda m, x: m.a(x) + m.p(x), {"a": same(3), "p": pool()}),
        (lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 1), "b": conv(8, 3, 3)}),
    ],
)
def test_branches_merge(function: Callable[[Any, Tensor], Tensor], layers: Any) -> None:
    model, x = Case("", function, layers).model(), values(*IMAGE)
    with torch.device("meta"):
        fused = fx_fuse(model)
    assert_same(model, fused, x)
    assert kernels(fused, x) == (1, 0, 0)
