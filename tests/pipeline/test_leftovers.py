"""What a forward leaves beside the folds: literal tensors, results that nobody uses, and a pass already run."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from fxfuse.rules.fold_constants import fold_constants
from fxfuse.rules.fold_upstream import fold_upstream
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, unchanged, values
from tests.support.samples import graph_text, lines

IMAGE = (2, 3, 6, 6)


def layers(**others: Any) -> dict[str, Any]:
    return {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), **others}


# -- literal tensors


class Literal(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * torch.ones(4, 1, 1)


class LiteralThatStays(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.bn(self.conv(x))) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)


def no_literals(model: nn.Module) -> bool:
    return not any(name.startswith("_tensor_constant") for m in model.modules() for name in dir(m))


def test_a_literal_tensor_is_folded(structure: Structure) -> None:
    model = trained(Literal(**layers()))
    fused = assert_fuses(model, values(*IMAGE), folded=["bn", "mul"], structure=structure)
    assert no_literals(model)
    assert no_literals(fused)
    assert sorted(fused.state_dict()) == ["conv.bias", "conv.weight"]


def test_a_literal_tensor_behind_something_else_stays(structure: Structure) -> None:
    model = trained(LiteralThatStays(**layers()))
    fused = assert_fuses(model, values(*IMAGE), folded=["bn"], structure=structure)
    assert no_literals(model)
    assert_same(model, pickle.loads(pickle.dumps(fused)), values(*IMAGE))


# -- results that nobody uses


class DeadNoop(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        unused = self.id(y)
        del unused
        return self.bn(y)


class DeadNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        unused = self.bn(y)
        del unused
        return self.other(torch.relu(y))


class DeadConv(Model):
    def forward(self, x: Tensor) -> Tensor:
        unused = self.other(x)
        del unused
        return torch.relu(self.bn(self.conv(x)))


class DeadFunction(Model):
    def forward(self, x: Tensor) -> Tensor:
        unused = F.conv2d(x, self.weight)
        del unused
        return torch.relu(self.bn(self.conv(x)))


def test_a_result_that_nobody_uses_is_no_use(structure: Structure) -> None:
    model = trained(DeadNoop(**layers(id=nn.Identity())))
    assert_fuses(model, values(*IMAGE), folded=["bn"], structure=structure)


def test_a_norm_that_nobody_uses_is_not_folded_into_a_value_that_others_use(structure: Structure) -> None:
    model = trained(DeadNorm(**layers(other=nn.Conv2d(4, 4, 1))))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    assert not Report.of(fused).folded
    assert [d.path for d in Report.of(fused).skipped] == ["bn"]


@pytest.mark.parametrize("cls", [DeadConv, DeadFunction])
def test_an_operation_without_use_is_not_run_in_a_graph(cls: type[Model]) -> None:
    model = trained(cls(**layers(other=nn.Conv2d(3, 8, 5), weight=nn.Parameter(values(4, 3, 3, 3)))))
    fused = assert_fuses(model, values(*IMAGE), folded=["bn"], structure="graph")
    assert graph_text(fused) == lines("""
        x = <input>
        conv = self.conv(x)
        relu = relu(conv)
        return relu
    """)
    assert sorted(fused.state_dict()) == ["conv.bias", "conv.weight"]


class Counts(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.count(x)
        return self.bn(self.conv(x))


class Counter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor


def test_what_has_an_effect_is_run_though_nobody_uses_its_result(structure: Structure) -> None:
    fused = fx_fuse(trained(Counts(**layers(count=Counter()))), structure=structure)
    assert folds(fused) == ["bn"]
    before = fused.state_dict()["count.calls"].clone()
    fused(values(*IMAGE))
    assert fused.state_dict()["count.calls"] == before + 1


# -- a pass already run


class Functional(Model):
    """Its own forward changes, so that a class is derived for it."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(F.conv2d(x, self.weight), self.mean, self.var)
        return torch.relu(y) + y.size(0)


class Twice(nn.Module):
    """A second pass finds something, with other rules than the first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x) * 2
        return y


def functional() -> Functional:
    return Functional(weight=nn.Parameter(values(4, 3, 3, 3)), mean=values(4) + 2, var=values(4).exp()).eval()


@pytest.mark.parametrize("below", [False, True])
def test_fusing_twice_folds_nothing_more(below: bool) -> None:
    model = Twice(functional()) if below else functional()
    once = fx_fuse(model, structure="module")
    assert Report.of(once).folded
    with unchanged(once):
        twice = fx_fuse(once, structure="module")
    assert not Report.of(twice).folded, str(Report.of(twice))
    restored = pickle.loads(pickle.dumps(twice))
    for other in (twice, restored):
        assert_same(model, other, values(*IMAGE))
        assert type(other).__name__ == type(model).__name__
        assert isinstance(other, type(model))


class TwoSteps(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight * 2)
        return torch.relu(F.batch_norm(y, self.mean, self.var))


def test_a_forward_is_derived_a_second_time() -> None:
    weight = nn.Parameter(values(4, 3, 3, 3))
    model = TwoSteps(weight=weight, mean=values(4) + 2, var=values(4).exp()).eval()
    once = fx_fuse(model, structure="module", rules=[fold_constants])
    twice = fx_fuse(once, structure="module", rules=[fold_upstream])
    assert Report.of(once).folded
    assert Report.of(twice).folded
    for other in (once, twice, pickle.loads(pickle.dumps(twice))):
        assert_same(model, other, values(*IMAGE))
        assert isinstance(other, TwoSteps)
