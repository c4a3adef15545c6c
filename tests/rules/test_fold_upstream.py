"""``fold_upstream``: a norm, or arithmetic with a constant, goes into the weights before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, unchanged, values
from tests.support.samples import assert_refused, graph_text, lines, only, parameter


class Block(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Written(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1) * self.gain + 2


class Functional(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        return F.batch_norm(y, self.mean, self.var, eps=0.1)


def conv_norm(**options: Any) -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.BatchNorm2d(4)))


def test_modules_before_and_after() -> None:
    model = trained(Block(conv=nn.Conv2d(3, 4, 3, bias=False), bn=nn.BatchNorm2d(4)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["bn"])
    assert graph_text(fused) == lines("""
        x = <input>
        conv = self.conv(x)
        relu = relu(conv)
        return relu
    """)
    assert sorted(fused.state_dict()) == ["conv.bias", "conv.weight"]


def test_functions_before_and_after() -> None:
    model = Written(weight=parameter(4, 3, 3, 3), gain=parameter(4, 1, 1)).eval()
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["mul", "add"])
    assert graph_text(fused) == lines("""
        x = <input>
        weight_1 = self.weight
        bias = self.bias
        conv2d = conv2d(x, weight_1, padding=1, bias=bias)
        return conv2d
    """)
    assert sorted(fused.state_dict()) == ["bias", "weight"]


def test_a_fold_that_assumes_something_leaves_a_check() -> None:
    weight, bias = parameter(4, 3), parameter(4, seed=1)
    model = Functional(weight=weight, bias=bias, mean=values(4), var=values(4).exp()).eval()
    fused = assert_fuses(model, values(5, 3), folded=["batch_norm"])
    assert graph_text(fused) == lines("""
        x = <input>
        weight_1 = self.weight
        bias_1 = self.bias
        linear = linear(x, weight_1, bias_1)
        require_rank = require_rank(linear, 2, batch_norm)
        return require_rank
    """)


def test_the_module_keeps_its_class_and_gets_an_identity() -> None:
    fused = assert_fuses(conv_norm(), values(2, 3, 6, 6), folded=["1"], structure="module")
    assert type(fused) is nn.Sequential
    assert [type(child) for child in fused.children()] == [nn.Conv2d, nn.Identity]


def test_a_chain_of_norms_and_noops_ends_in_one_convolution(structure: Structure) -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.BatchNorm2d(4), nn.Identity()]
    model = trained(nn.Sequential(*layers, nn.BatchNorm2d(4), nn.ReLU()))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1", "3", "5"], structure=structure)
    assert {d.into for d in Report.of(fused).folded} == {("0",)}


def test_questions_for_the_shape_do_not_count_as_uses(structure: Structure) -> None:
    class Asks(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y).reshape(y.shape[0], y.size(1), -1) + y.dim()

    model = trained(Asks(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], structure=structure)


# -- one precondition broken each


class UsedTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.cat([self.bn(y), y])


class ReturnedToo(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.bn(y), y


class ChangedBefore(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.add_(1)
        return self.bn(y)


class ChangedAfter(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.bn(y)
        return z + y.relu_()


class ViewChanged(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.view(-1).mul_(2)
        return self.bn(y)


@pytest.mark.parametrize(
    ("cls", "reasons"),
    [
        (UsedTwice, {Reason.SEVERAL_USES}),
        (ReturnedToo, {Reason.SEVERAL_USES}),
        (ChangedBefore, {Reason.MUTATED, Reason.SEVERAL_USES}),
        (ChangedAfter, {Reason.MUTATED, Reason.SEVERAL_USES}),
        (ViewChanged, {Reason.MUTATED, Reason.SEVERAL_USES}),
    ],
)
def test_a_value_that_others_see_stays(cls: type[Model], reasons: set[Reason], structure: Structure) -> None:
    model = trained(cls(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    report = Report.of(fused)
    assert not report.folded
    assert only(report.skipped).reason in reasons
    assert_same(model, fused, values(2, 3, 6, 6))


BARE = nn.LayerNorm(4, elementwise_affine=False)


@pytest.mark.parametrize("between", [nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid(), nn.Dropout().train(), BARE])
def test_what_is_not_an_identity_stops_an_affine(between: nn.Module) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), between, nn.BatchNorm2d(4)))
    between.train(isinstance(between, nn.Dropout))
    decision = assert_refused(model, Reason.NOT_LINEAR)
    assert "1" in decision.detail


def test_a_norm_of_the_input_stays() -> None:
    decision = assert_refused(trained(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())), Reason.NOT_LINEAR)
    assert "the input" in decision.detail


def test_a_norm_in_training_mode_stays_and_one_in_evaluation_mode_goes() -> None:
    model = nn.Sequential(conv_norm(), nn.ReLU(), trained(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))))
    model.train()
    model.get_submodule("0.1").eval()
    report = Report.of(fx_fuse(model))
    assert only(report.folded).path == "0.1"
    assert (only(report.skipped).path, only(report.skipped).reason) == ("2.1", Reason.TRAINING)


class Constant(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain


ENLARGING = [
    # The output is (1, 1, 3, 1): every one of these makes it larger, also where all elements are the same.
    pytest.param((2, 1, 1), id="channels"),
    pytest.param((2, 1), id="height"),
    pytest.param((5,), id="width"),
    pytest.param((2, 1, 1, 1), id="batch"),
    pytest.param((1, 1, 1, 1, 1), id="another axis"),
]


@pytest.mark.parametrize("shape", ENLARGING)
@pytest.mark.parametrize("uniform", [True, False])
def test_a_constant_that_enlarges_the_value_stays(shape: tuple[int, ...], uniform: bool, structure: Structure) -> None:
    gain = torch.full(shape, 2.0).double() if uniform else values(*shape)
    model = Constant(conv=nn.Conv2d(3, 1, (1, 3)), gain=gain).double().eval()
    x = values(1, 3, 1 if shape == (2, 1) else 3, 3)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    expected = model(x)
    if any(d.assumed for d in Report.of(fused).folded):
        with pytest.raises(ValueError, match="axes"):
            fused(x)
        return
    assert fused(x).shape == expected.shape
    assert_same(model, fused, x)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1), (3, 1, 1, 1), (4, 4, 4)])
def test_a_constant_along_another_axis_stays(shape: tuple[int, ...], structure: Structure) -> None:
    model = Constant(conv=nn.Conv2d(3, 4, 3), gain=parameter(*shape)).double().eval()
    assert_fuses(model, values(3, 3, 6, 6), structure=structure)
