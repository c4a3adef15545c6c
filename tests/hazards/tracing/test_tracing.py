"""Hazard 33: what a forward asks about its values: never a wrong branch, and no fold lost for a question."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import UNPROVEN, assert_decided, assert_right, assert_stays, block, layers
from tests.hazards.tracing.asserting import AssertsClass, AssertsOnOutput, AssertsRank, AssertsValues
from tests.support.helpers import Model, folds, trained, values

if TYPE_CHECKING:
    from tests.support.helpers import Structure

# -- questions about shapes do not forbid a fold


class UnpacksShape(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        count, channels, height, width = y.shape
        return self.bn(y).reshape(count, channels, height * width)


class ComputesWithShape(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        scale = y.size(0) + y.numel() // y.shape[2]
        return self.bn(y) * scale


class AsksForDtype(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.to(self.conv.weight.dtype))
        return self.bn(y) + torch.ones(y.shape[1:], dtype=y.dtype, device=y.device)


class BranchesOnConstants(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.training or self.conv.weight.shape[0] != 3 or self.conv.bias is None:
            y = y.relu()
        return self.bn(y)


ASKING = [AssertsRank, AssertsClass, AssertsValues, UnpacksShape, ComputesWithShape, AsksForDtype, BranchesOnConstants]


@pytest.mark.parametrize("cls", ASKING)
def test_questions_do_not_forbid_a_fold(structure: Structure, cls: type[Model]) -> None:
    assert_decided(trained(cls(**layers())), folded=["bn"], structure=structure)


def test_an_assertion_is_still_checked(structure: Structure) -> None:
    fused = assert_decided(trained(AssertsValues(**layers())), folded=["bn"], structure=structure)
    with pytest.raises(AssertionError):
        fused(torch.full((1, 3, 6, 6), 1e9, dtype=torch.float64))


def test_an_assertion_about_the_values_between_forbids_the_fold(structure: Structure) -> None:
    model = trained(AssertsOnOutput(**layers()))
    assert_decided(model, left={"bn": Reason.SEVERAL_USES}, structure=structure)


# -- control flow that cannot be traced: what is called as a whole folds all the same


class LoopsOverBatch(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x[i : i + 1]) + self.two(x[i : i + 1]) for i in range(x.shape[0])])


class IteratesOverValue(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(sample[None]) + self.two(sample[None]) for sample in x])


class BranchesOnShape(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 4:
            return self.one(x)
        return self.two(x)


class BranchesOnValue(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        if y.mean() > x.mean():
            y = self.two(y)
        return y * float(y.mean())


class ComputesPadding(Model):
    def forward(self, x: Tensor) -> Tensor:
        missing = int(math.ceil(x.shape[-1] / 4) * 4 - x.shape[-1])
        return self.two(self.one(torch.nn.functional.pad(x, (0, missing))))


class RepeatsUntil(Model):
    def forward(self, x: Tensor) -> Tensor:
        y, left = self.two(x), int(x.shape[0])
        while left > 0:
            y, left = self.one(y).tanh(), left - 2
        return y


UNTRACEABLE = [LoopsOverBatch, IteratesOverValue, BranchesOnShape, BranchesOnValue, ComputesPadding, RepeatsUntil]


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("cls", UNTRACEABLE)
def test_blocks_in_untraceable_code_fold(cls: type[Model], example: tuple[int, ...] | None) -> None:
    model = trained(cls(one=block(), two=block()))
    inputs = None if example is None else values(*example)
    fused = assert_decided(model, folded=["one.bn", "two.bn"], example_inputs=inputs)
    assert type(fused) is cls


# -- questions that a trace would answer wrongly


class ClassOfComputed(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) + x
        return self.bn(y.relu()) if isinstance(y, Tensor) else self.bn(self.conv(x))


class ExactClass(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y.relu() if type(y) is Tensor else y)


class RankInSet(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y.relu() if x.dim() in {3, 4} else y)


class RankAsKey(Model):
    def forward(self, x: Tensor) -> Tensor:
        change: Any = {4: torch.relu}.get(x.dim(), torch.clone)
        return self.bn(change(self.conv(x))) if change is torch.relu else self.bn(self.conv(x))


class IdentityOfDtype(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y.relu() if x.dtype is torch.float64 else y)


class NoGradients(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y if torch.is_grad_enabled() else y.relu())


class AttributeOfComputed(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * x
        return self.bn(self.conv(x)) if hasattr(y, "mask") else self.bn(y)


class CatchesErrors(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            large = int(x.shape[0]) > 1
        except TypeError:
            large = False
        return self.bn(y.relu() if large else y)


class OwnCall(Model):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 3

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu())


QUESTIONS = [
    ClassOfComputed, ExactClass, RankInSet, RankAsKey, IdentityOfDtype, NoGradients,
    AttributeOfComputed, CatchesErrors, OwnCall,
]  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cls", QUESTIONS)
def test_no_question_is_answered_wrongly(cls: type[Model], nested: bool) -> None:
    model = trained(nn.Sequential(cls(**layers())) if nested else cls(**layers()))
    assert_stays(model, ["0.bn" if nested else "bn"], because={Reason.NOT_LINEAR, *UNPROVEN})


# -- questions that other code asks for the forward


class Asks(Model):
    """Takes one of two ways, by what a value is."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y + 1 if self.asks(y) else y * 2


@pytest.mark.parametrize(
    "asks",
    [
        lambda y: torch.jit.isinstance(y, Tensor),
        lambda y: torch.jit.isinstance(y, Tensor | None),
        lambda y: torch.jit.isinstance(y, list[Tensor]),
        lambda y: torch.jit.isinstance(y.chunk(3, 1), list[Tensor]),
        lambda y: isinstance(y, Sequence),
        lambda y: isinstance(y, Iterable),
        lambda y: isinstance(y, (Sequence, Tensor)),
        lambda y: isinstance(y.chunk(3, 1), Sequence),
        lambda y: isinstance(y.max(1), Sequence),
        lambda y: isinstance(y.shape[0], numbers.Number),
    ],
)
@pytest.mark.parametrize("kept", [None, "module"])
def test_what_a_value_is_said_to_be(asks: Any, kept: Structure | None) -> None:
    model: Any = trained(Asks(**layers()))
    model.asks = asks
    assert_right(model, fx_fuse(model, structure=kept), [values(2, 3, 6, 6)])


def test_the_answer_costs_no_fold() -> None:
    for asks in (lambda y: torch.jit.isinstance(y, Tensor), lambda y: isinstance(y, Sequence)):
        model: Any = trained(Asks(**layers()))
        model.asks = asks
        assert "bn" in folds(fx_fuse(model))
