"""Hazard 30: a module of which nothing is left is still called as before: with several arguments, or by keyword."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.extend import DEFAULT_RULES
from tests.report.reason_models import halves
from tests.support.helpers import Model, assert_fuses, assert_same, folds, trained, values
from tests.support.samples import parameter

if TYPE_CHECKING:
    from tests.support.helpers import Structure


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Summed(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.add(self.one(x), self.other(x))
        return y


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = parameter(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Named(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scale(x=self.conv(x))
        return y


class Tuple(Model):
    """Calls a norm that gives a tuple, of which it takes the first item."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        constants = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        y: Tensor = torch.ops.aten._native_batch_norm_legit_no_training.default(x, *constants, 0.1, 0.2)[0]
        return y


def test_a_norm_that_gives_a_tuple_goes_from_its_class(structure: Structure) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 1), Tuple(norm=nn.BatchNorm2d(4))))
    fused = fx_fuse(model, structure=structure)
    assert [(d.path, d.into) for d in Report.of(fused).folded] == [("1", ("0",))]
    assert_same(model, fused, values(2, 3, 5, 5))


def test_a_sum_that_is_a_module_keeps_its_two_arguments(structure: Structure) -> None:
    model = trained(Summed(one=nn.Conv2d(3, 4, 1), other=nn.Conv2d(3, 4, 1), add=Add()))
    fused = assert_fuses(model, values(2, 3, 5, 5), folded=["other"], structure=structure)
    again = assert_fuses(fused, values(2, 3, 5, 5), structure=structure)
    assert_same(model, again, values(2, 3, 4, 4))


def test_a_module_called_by_keyword_goes_in_a_graph_alone() -> None:
    model, x = trained(Named(conv=nn.Conv2d(3, 4, 3), scale=Scale())), values(2, 3, 5, 5)
    assert_fuses(model, x, folded=["scale"])
    kept = assert_fuses(model, x, structure="module", left={"scale": Reason.OWN_FORWARD})
    assert isinstance(kept.scale, Scale)
    assert folds(kept) == []


class NamedNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(input=self.conv(x))
        return y


def test_a_norm_called_by_the_name_of_its_input_goes(structure: Structure) -> None:
    model = trained(NamedNorm(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 5, 5), folded=["bn"], structure=structure)


class Third(nn.Module):
    """Has no tensors, so that a graph of it needs no such module."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 3


def test_a_fold_in_a_module_that_a_graph_has_no_longer_is_undone() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), Third(), nn.BatchNorm2d(4)))
    graph, x = fx_fuse(model, rules=[]), values(2, 3, 5, 5)
    assert "1" not in dict(graph.named_modules())
    fused = fx_fuse(graph, x, rules=[*DEFAULT_RULES, halves])
    assert {d.reason for d in Report.of(fused).skipped} == {Reason.DIFFERS}
    assert_same(model, fused, x)
