"""Every norm kernel that runs on the example inputs has a line in the report, wherever the norm is held."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, assert_same, folds, reasons, trained, values

SHAPE = (2, 3, 5, 5)


def norms(count: int = 2) -> list[nn.Module]:
    return [trained(nn.BatchNorm2d(3)) for _ in range(count)]


class Listed(Model):
    """Norms that are no children of the model."""

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.held["norms"]:
            x = torch.relu(norm(self.conv(x)))
        return x


class Branching(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = -x if x.sum() > 1e9 else x
        for norm in self.held["norms"]:
            x = torch.relu(norm(self.conv(x)))
        return x


def listed(cls: type[Model], held: dict[str, Any]) -> Model:
    return trained(cls(conv=nn.Conv2d(3, 3, 1), held=held))


@pytest.mark.parametrize("inputs", [False, True])
def test_norms_in_a_plain_list_fold(inputs: bool) -> None:
    model, x = listed(Listed, {"norms": norms()}), values(*SHAPE)
    fused = fx_fuse(model, x if inputs else None)
    assert_same(model, fused, x)
    assert (folds(fused), reasons(fused)) == (["batch_norm", "batch_norm_1"], set())


def test_layers_in_a_plain_list_fold_with_their_norms() -> None:
    model, x = trained(Listed(conv=nn.Conv2d(3, 3, 1), held={})), values(*SHAPE)
    model.held["norms"] = [trained(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)))]
    fused = fx_fuse(model, x)
    assert_same(model, fused, x)
    assert folds(fused) == ["batch_norm"]


@pytest.mark.parametrize("inputs", [False, True])
def test_norms_in_a_plain_list_of_code_that_is_not_traced_are_told(inputs: bool) -> None:
    model, x = listed(Branching, {"norms": norms()}), values(*SHAPE)
    fused = fx_fuse(model, x if inputs else None)
    assert_same(model, fused, x)
    assert reasons(fused) == {("held[0]", Reason.OPAQUE), ("held[1]", Reason.OPAQUE)}
    assert "nn.ModuleList" in Report.of(fused).skipped[0].detail


def test_a_norm_in_training_mode_that_eval_did_not_reach_is_told() -> None:
    model = listed(Listed, {"norms": [nn.BatchNorm2d(3).double()]})
    assert reasons(fx_fuse(model)) == {("held[0]", Reason.OPAQUE)}


def test_a_hooked_module_in_a_plain_list_is_not_traced() -> None:
    model, x, seen = listed(Listed, {"norms": norms(1)}), values(*SHAPE), list[Any]()
    model.held["norms"][0].register_forward_hook(lambda *args: seen.append(args))
    fused = fx_fuse(model)
    assert_same(model, fused, x)
    assert len(seen) == 2
    assert reasons(fused) == {("held[0]", Reason.OPAQUE)}


GLOBAL = trained(nn.BatchNorm2d(3))


class Global(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = -x if x.sum() > 1e9 else x
        return GLOBAL(self.conv(x))


def test_a_norm_that_only_runs_is_told_with_inputs() -> None:
    model, x = trained(Global(conv=nn.Conv2d(3, 3, 1))), values(*SHAPE)
    fused = fx_fuse(model, x)
    assert_same(model, fused, x)
    assert reasons(fused) == {("Global", Reason.OPAQUE)}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_norm_in_torchscript_is_told_with_inputs() -> None:
    scripted = torch.jit.script(trained(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))))
    model, x = nn.Sequential(trained(nn.Conv2d(3, 3, 1)), scripted).eval(), values(*SHAPE)
    fused = fx_fuse(model, x)
    assert_same(model, fused, x)
    assert reasons(fused) == {("1.1", Reason.OPAQUE)}


class Statistics(Model):
    """A norm that is a function, with its statistics in another module."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x).sin(), self.other.running_mean, self.other.running_var)


def test_a_norm_that_has_a_line_gets_no_second_one() -> None:
    model, x = trained(nn.Sequential(Statistics(conv=nn.Conv2d(3, 3, 1), other=nn.BatchNorm2d(3)))), values(*SHAPE)
    fused = fx_fuse(model, x)
    assert_same(model, fused, x)
    assert [d.reason for d in Report.of(fused).skipped].count(Reason.OPAQUE) == 0
