"""Tensors that modules hold as plain attributes are constants of ``torch.compile(model, backend="fxfuse")`` too."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report
from tests.frontends.test_backend import X, _nothing_compiled, compiled, counts
from tests.support.helpers import Model, assert_equal, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["_nothing_compiled"]  # a fixture that every test here uses too


class Plain(Model):
    """Holds its constants where no parameters or buffers are."""

    def __init__(self) -> None:
        super().__init__(conv=nn.Conv2d(3, 4, 1))
        self.scales = [values(4, 1, 1)]
        self.mean, self.var = values(4), values(4).square() + 0.2
        self.calls = torch.zeros(4, 1, 1, dtype=torch.float64)  # another one in each call
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return F.batch_norm(self.conv(x) * self.scales[0], self.mean, self.var) + self.calls


def change_in_place(model: Any) -> None:
    model.mean.add_(1)
    model.scales[0].mul_(2)


def exchange(model: Any) -> None:
    model.mean, model.scales[0] = model.mean * 3, model.scales[0] + 1


@pytest.mark.parametrize("change", [change_in_place, exchange])
def test_plain_attributes_are_constants_of_each_call(change: Callable[[Any], None]) -> None:
    model, reports = Plain(), list[Report]()
    other: Any = copy.deepcopy(model)
    function = compiled(other, reports)
    for _ in range(3):
        assert_equal(run(model, (X,)), run(function, (X,)))
        change(model)
        change(other)
    assert counts(reports)[0] == 3


def test_plain_attributes_are_not_compared_where_nothing_folds_with_them() -> None:
    class Cached(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)).relu() + self.cache

    model = trained(Cached(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    object.__setattr__(model, "cache", values(4, 6, 6))
    graphs: list[Any] = []

    def inner(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph

    function = compiled(model, backend=inner)
    for _ in range(2):
        model.cache += 1
        assert_equal(run(model, (X,)), run(function, (X,)))
    assert len(graphs) == 1
