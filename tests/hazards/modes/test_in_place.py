"""Hazard 16: values and constants that are changed in place: no affine may be moved across the change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, values


def layers(cls: type[Model], **more: Any) -> Model:
    return trained(cls(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), **more))


class AddBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.add_(x.mean())
        return self.bn(y)


class PlusEqualsBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y
        z += x.mean()
        return self.bn(y)


class FunctionBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        F.relu(y, inplace=True)
        return self.bn(y)


class TorchFunctionBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        torch.relu_(y)
        return self.bn(y)


class OutArgumentBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        torch.mul(y, x.mean(), out=y)
        return self.bn(y)


class SetItemBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, 0] = 1.0
        return self.bn(y)


class ChangedAfterTheNorm(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        z = self.bn(y)
        y.mul_(2)
        return z, x


class ModuleBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.relu(y)
        return self.bn(y)


class ViewBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.view(-1).mul_(2)
        return self.bn(y)


class SliceBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        part = y[:, 1:]
        part.add_(1)
        return self.bn(y)


class DropoutAliasBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.dropout(y).add_(1)
        return self.bn(y)


DIRECT = [
    *(AddBetween, PlusEqualsBetween, FunctionBetween, TorchFunctionBetween, OutArgumentBetween),
    *(ChangedAfterTheNorm,),
]


@pytest.mark.parametrize("cls", DIRECT)
def test_a_value_that_is_changed_in_place_keeps_the_norm(structure: Structure, cls: type[Model]) -> None:
    assert_fuses(layers(cls), values(2, 3, 6, 6), left={"bn": Reason.MUTATED}, structure=structure)


def test_a_value_that_is_written_into_keeps_the_norm() -> None:
    assert_fuses(layers(SetItemBetween), values(2, 3, 6, 6), left={"bn": Reason.OPAQUE})


def test_a_value_that_a_module_changes_in_place_keeps_the_norm(structure: Structure) -> None:
    model = layers(ModuleBetween, relu=nn.ReLU(inplace=True))
    assert_fuses(model, values(2, 3, 6, 6), left={"bn": Reason.MUTATED}, structure=structure)


@pytest.mark.parametrize("cls", [ViewBetween, SliceBetween, DropoutAliasBetween])
def test_a_value_that_is_changed_through_an_alias_keeps_the_norm(structure: Structure, cls: type[Model]) -> None:
    model = layers(cls, dropout=nn.Dropout())
    # In a graph of its own the dropout is gone, and what it gave is the value itself.
    direct = cls is DropoutAliasBetween and structure == "graph"
    reason = Reason.MUTATED if direct else Reason.SEVERAL_USES
    assert_fuses(model, values(2, 3, 6, 6), left={"bn": reason}, structure=structure)


class ChangedAsResult(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu_())


def test_a_norm_after_an_activation_in_place_stays(structure: Structure) -> None:
    left = {"bn": Reason.NOT_LINEAR}
    assert_fuses(layers(ChangedAsResult), values(2, 3, 6, 6), left=left, structure=structure)


class ActivationAfter(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class ChangedAfterwards(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y.add_(x.mean())
        return y


class InputChanged(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        x.mul_(0.5)
        return self.bn(y) * x.mean()


@pytest.mark.parametrize("cls", [ActivationAfter, ChangedAfterwards, InputChanged])
def test_a_change_in_place_of_another_value_does_not_forbid_the_fold(structure: Structure, cls: type[Model]) -> None:
    model = layers(cls, relu=nn.ReLU(inplace=True))
    assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], structure=structure)


class AddsIntoAlias(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.identity(x)
        z = self.conv(y)
        y.add_(1)
        return self.bn(z), x


def test_dropping_an_identity_keeps_what_is_changed_through_it(structure: Structure) -> None:
    model = layers(AddsIntoAlias, identity=nn.Identity())
    assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], structure=structure)


# -- constants


class ConstantChanged(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.g.mul_(-1.5)
        return self.bn(y * self.g)


class ConstantChangedThroughView(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.g.view(-1).mul_(-1.5)
        return self.bn(self.conv(x) * self.g)


class ConstantChangedByModule(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.act(self.g)
        return self.bn(self.conv(x) * self.g)


class StatisticsChanged(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.bn.running_mean.mul_(-1.5)
        return self.bn(self.conv(x))


class WeightChanged(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.conv.weight.mul_(-1.5)
        return self.bn(self.conv(x))


MUTATING = [
    ConstantChanged,
    ConstantChangedThroughView,
    ConstantChangedByModule,
    StatisticsChanged,
    WeightChanged,
]


@pytest.mark.parametrize("cls", MUTATING)
def test_a_constant_that_every_call_changes_is_no_constant(structure: Structure, cls: type[Model]) -> None:
    # The calls change what they share, so that the model and the result each get their own tensors.
    model = layers(cls, g=values(4, 1, 1), act=nn.LeakyReLU(0.5, inplace=True))
    fused, inputs = fx_fuse(copy.deepcopy(model), structure=structure), values(2, 3, 6, 6)
    for _ in range(2):
        assert_same(model, fused, inputs)
    assert not Report.of(fused)
    assert {d.reason for d in Report.of(fused).skipped} == {Reason.MUTATED}
