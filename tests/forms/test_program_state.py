"""Exported programs with shared, changed and unnamed tensors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export.graph_signature import OutputKind

from fxfuse import Reason, Report
from tests.forms.programs import assert_program_fuses, fused, names, program, saved_and_loaded
from tests.support.graph_reading import count_norms
from tests.support.helpers import Model, assert_equal, run, trained, values
from tests.support.samples import only, parameter

if TYPE_CHECKING:
    from torch.export import ExportedProgram

IMAGE = (2, 3, 6, 6)


def layers(**others: Any) -> dict[str, Any]:
    return {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), **others}


# -- shared tensors


class TwoConvs(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * torch.relu(self.other(x))


def tied() -> nn.Module:
    model = trained(TwoConvs(**layers(other=nn.Conv2d(3, 4, 3))))
    model.get_submodule("other").weight = model.get_submodule("conv").weight
    return model


def test_tied_weights_are_untied(decomposed: bool) -> None:
    model, x = tied(), values(*IMAGE)
    result = assert_program_fuses(model, x, folds=1, decomposed=decomposed)
    decision = only(Report.of(result).folded)
    assert decision.copied_bytes == (4 * 3 * 3 * 3 + 4) * 8
    # torch.export reads both convolutions' weight under the last of its names, and keeps the other one, unused.
    assert set(names(result)["state"]) == {"conv.weight", "conv.bias", "other.weight", "other.weight_1", "other.bias"}
    assert_equal(run(model, (x,)), run(torch.export.unflatten(result), (x,)))
    assert_equal(run(model, (x,)), run(saved_and_loaded(result).module(), (x,)))


def test_tied_weights_stay_without_copies(decomposed: bool) -> None:
    model, x = tied(), values(*IMAGE)
    result = assert_program_fuses(model, x, folds=0, decomposed=decomposed, allow_copies=False)
    assert only(Report.of(result).skipped).reason is Reason.SHARED


class Repeated(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x))) + torch.tanh(self.bn2(self.conv(-x)))


def test_a_convolution_that_is_called_twice_with_two_norms(decomposed: bool) -> None:
    model = trained(Repeated(**layers(bn2=nn.BatchNorm2d(4))))
    result = assert_program_fuses(model, values(*IMAGE), folds=3, decomposed=decomposed)
    assert len([name for name in names(result)["parameters"] if "weight" in name]) == 2
    x = values(*IMAGE)
    assert_equal(run(model, (x,)), run(saved_and_loaded(result).module(), (x,)))


def test_a_convolution_that_is_called_twice_stays_without_copies(decomposed: bool) -> None:
    model = trained(Repeated(**layers(bn2=nn.BatchNorm2d(4))))
    result = assert_program_fuses(model, values(*IMAGE), folds=0, decomposed=decomposed, allow_copies=False)
    assert {d.reason for d in Report.of(result).skipped} == {Reason.SHARED}


# -- buffers that are not saved, and tensors without a name


class Hidden(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) * self.gain) + self.shift


def test_buffers_that_are_not_saved(decomposed: bool) -> None:
    model = Hidden(**layers()).double().eval()
    model.register_buffer("gain", values(4, 1, 1), persistent=False)
    model.register_buffer("shift", values(4, 1, 1), persistent=False)
    result = assert_program_fuses(model, values(*IMAGE), folds=1, decomposed=decomposed)
    assert "gain" not in result.constants
    assert list(result.constants) == ["shift"]
    assert "shift" in names(result)["buffers"]
    assert "gain" not in names(result)["buffers"]
    x = values(*IMAGE)
    assert_equal(run(model, (x,)), run(saved_and_loaded(result).module(), (x,)))


class Literals(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * torch.tensor([[[2.0]], [[-3.0]], [[4.0]], [[5.0]]], dtype=torch.float64)
        return torch.relu(y) + torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[4.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    "decomposed",
    [False, True],
)
def test_literal_tensors(decomposed: bool) -> None:
    model, x = Literals(**layers()).double().eval(), values(*IMAGE)
    result = assert_program_fuses(model, x, folds=1, decomposed=decomposed)
    assert len(result.constants) == len(names(result)["constants"]) == 1
    assert_equal(run(model, (x,)), run(saved_and_loaded(result).module(), (x,)))


class Standardised(Model):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return torch.relu(self.bn(F.conv2d(x, weight)))


def test_a_weight_that_is_computed(decomposed: bool) -> None:
    model = trained(Standardised(weight=parameter(4, 3, 3, 3), bn=nn.BatchNorm2d(4)))
    result = assert_program_fuses(model, values(*IMAGE), folds=1, decomposed=decomposed)
    assert sorted(names(result)["state"]) == ["bias", "weight"]


# -- tensors that the program writes into


def assert_same_thrice(given: ExportedProgram, result: ExportedProgram, x: Tensor) -> None:
    """Both give the same in call after call; what is written into is shared, as with all tensors that stay."""
    before, after = copy.deepcopy(given).module(), copy.deepcopy(result).module()
    outputs = []
    for _ in range(3):
        outputs.append(run(before, (x,)))
        assert_equal(outputs[-1], run(after, (x,)))
    assert not torch.equal(outputs[0], outputs[-1])


class Counts(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return torch.relu(self.bn(self.conv(x))) + self.count


def test_a_counter_is_still_counted(decomposed: bool) -> None:
    model = trained(Counts(**layers(count=torch.zeros(1))))
    x = values(*IMAGE)
    given = program(model, x, decomposed=decomposed)
    result = fused(given)
    assert len(Report.of(result).folded) == 1
    mutations = [s.target for s in result.graph_signature.output_specs if s.kind is OutputKind.BUFFER_MUTATION]
    assert mutations == (["count"] if decomposed else [])
    assert result.state_dict["count"] is given.state_dict["count"]
    assert_same_thrice(given, result, x)


class Drifting(Model):
    """The gain is another one in every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.gain.mul_(2)
        return self.conv(x) * self.gain


class Moves(Model):
    """A norm of which the mean is another one in every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.bn.running_mean.add_(1)
        return self.bn(self.conv(x))


@pytest.mark.parametrize("cls", [Drifting, Moves])
def test_what_is_written_into_is_never_folded(cls: type[Model], decomposed: bool) -> None:
    model = trained(cls(**layers(gain=values(4, 1, 1))))
    x = values(*IMAGE)
    given = program(model, x, decomposed=decomposed)
    result = fused(given)
    assert not Report.of(result).folded, str(Report.of(result))
    assert_same_thrice(given, result, x)


def test_a_norm_in_training_mode(decomposed: bool) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    model.train()
    x = values(*IMAGE)
    given = program(model, x, decomposed=decomposed)
    result = fused(given)
    assert not Report.of(result).folded
    assert count_norms(result.graph_module) == 1
    before, after = copy.deepcopy(given).module(), copy.deepcopy(result).module()
    for _ in range(3):
        assert_equal(run(before, (x,)), run(after, (x,)), rtol=0.0)
    assert torch.equal(before.get_buffer("1.running_mean"), after.get_buffer("1.running_mean"))


@pytest.mark.parametrize(
    "decomposed",
    [False, True],
)
def test_a_norm_in_training_mode_is_told(decomposed: bool) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).train()
    report = Report.of(fused(program(model, values(*IMAGE), decomposed=decomposed)))
    assert only(report.skipped).reason is Reason.TRAINING


class PlainTensors(nn.Module):
    """Its weights are plain tensors: constants of a program, which are not in its state."""

    def __init__(self, *, merges: bool) -> None:
        super().__init__()
        self.first, self.second = values(4, 3), values(5, 4)
        self.bias, self.mean, self.variance = values(4), values(4), values(4).abs() + 0.1
        self.merges = merges

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.first, self.bias)
        y = y + 5 if self.merges else F.batch_norm(y, self.mean, self.variance).sin()
        return F.linear(y, self.second)


@pytest.mark.parametrize("merges", [False, True])
def test_weights_that_are_plain_tensors_become_parameters(merges: bool) -> None:
    model, x = PlainTensors(merges=merges).eval(), values(2, 3)
    result = fused(program(model, x))
    assert Report.of(result).folded
    for either in (result, saved_and_loaded(result)):
        assert_equal(run(model, (x,)), run(either.module(), (x,)))
