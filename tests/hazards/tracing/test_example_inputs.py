"""Hazard 33: the capture is checked on example inputs, and a fold that makes a difference goes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import FuseError, Reason, Report, fx_fuse
from tests.hazards.blocks import assert_decided, assert_recorded, assert_stays, batch_of, block, layers, sequence
from tests.support.helpers import Model, assert_equal, folds, reasons, run, trained, unchanged, values

EXAMPLE = (2, 3, 6, 6)

# -- the capture is checked against the model


class GradientMode(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y if torch.is_grad_enabled() else y.relu())


class DtypeByIdentity(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y.relu() if x.dtype is torch.float64 else y)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cls", [GradientMode, DtypeByIdentity])
def test_a_wrong_capture_is_not_used(cls: type[Model], nested: bool) -> None:
    inner = cls(**layers())
    model = trained(nn.Sequential(block(), inner) if nested else inner)
    path = "1.bn" if nested else "bn"
    allowed = {Reason.NOT_LINEAR, Reason.OPAQUE}
    fused = assert_stays(model, [path], because=allowed, example_inputs=values(*EXAMPLE))
    assert folds(fused) == (["0.bn"] if nested else [])


# -- what tracing cannot capture folds with example inputs


class Pads(Model):
    def forward(self, x: Tensor) -> Tensor:
        missing = -int(x.shape[-1]) % 4
        y = self.conv(F.pad(x, (0, missing)))
        return self.bn(y).relu()


class Nested(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * batch_of(x)


class Renamed(Model):
    def forward(self, x: Tensor) -> Tensor:
        size = batch_of(x)
        x = self.conv(x)
        x = self.bn(x)
        return x * size


class InBranch(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return x * 2
        return self.bn(self.conv(x))


CONFIRMED = [Pads, Nested, Renamed, InBranch]


@pytest.mark.parametrize(("cls", "inside"), [*((cls, False) for cls in CONFIRMED), (Pads, True)])
def test_a_norm_that_always_follows_folds(cls: type[Model], inside: bool) -> None:
    model = trained(nn.Sequential(nn.ReLU(), cls(**layers())) if inside else cls(**layers()))
    path = "1.bn" if inside else "bn"
    fused = assert_recorded(model, path, example=values(*EXAMPLE), branches=False)
    assert isinstance(fused, type(model))
    assert_stays(model, [path])


class OtherBranch(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if batch_of(x) > 4 else self.bn(y)


class OtherCall(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return self.conv(x)
        return self.bn(self.conv(x))


class OtherNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return self.bn(x)
        return self.bn(self.conv(x))


class GivenAnother(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if batch_of(x) > 4:
            y = x.relu()
        return self.bn(y)


class ScaledInPlace(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if batch_of(x) > 4:
            y *= 2
        return self.bn(y)


class ActivatedBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if batch_of(x) > 4:
            F.relu_(y)
        return self.bn(y)


class HiddenName(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return getattr(self, "conv")(x)  # noqa: B009 - this is the point
        return self.bn(self.conv(x))


class HiddenDictionary(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return dict(self.named_children())["conv"](x)
        return self.bn(self.conv(x))


class HiddenSelf(Model):
    def forward(self, x: Tensor) -> Tensor:
        me = self
        if batch_of(x) > 4:
            return me.conv(x)
        return self.bn(self.conv(x))


class HiddenHelper(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return convolved(self, x)
        return self.bn(self.conv(x))


class HiddenList(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return next(self.children())(x)
        return self.bn(self.conv(x))


class ReadsWeight(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return x * self.conv.weight.sum()
        return self.bn(self.conv(x))


def convolved(model: Any, x: Tensor) -> Tensor:
    return model.conv(x)


BRANCHING = [
    OtherBranch, OtherCall, OtherNorm, GivenAnother, ScaledInPlace, ActivatedBetween, HiddenName, HiddenDictionary,
    HiddenSelf, HiddenHelper, HiddenList, ReadsWeight,
]  # fmt: skip


@pytest.mark.parametrize(("cls", "inside"), [*((cls, False) for cls in BRANCHING), (OtherCall, True)])
def test_a_run_proves_nothing_for_the_other_branch(cls: type[Model], inside: bool) -> None:
    model = trained(nn.Sequential(nn.ReLU(), cls(**layers())) if inside else cls(**layers()))
    path = "1.bn" if inside else "bn"
    assert_recorded(model, path, example=values(*EXAMPLE), branches=True)
    assert_stays(model, [path])


@pytest.mark.parametrize("cls", [Nested, OtherCall])
def test_no_graph_is_made_of_one_branch(cls: type[Model]) -> None:
    model = trained(cls(**layers()))
    for inputs in (None, values(*EXAMPLE)):
        with unchanged(model), pytest.raises(FuseError, match="cannot be traced as a whole"):
            fx_fuse(model, inputs, structure="graph")


# -- a module that the example does not reach is not proven by it


class TwoSides(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) if batch_of(x) > 4 else self.small(x)


def test_what_the_example_does_not_reach_is_only_assumed() -> None:
    model = trained(TwoSides(large=block(), small=sequence()))
    fused = assert_decided(model, folded=["large.bn", "small.1"], example_inputs=values(*EXAMPLE))
    assumed = {decision.path for decision in Report.of(fused).folded if decision.assumed}
    assert assumed == {"large.bn"}


# -- a fold that makes a difference is undone, and only that


CALLED: list[Any] = []


class Global(Model):
    """Calls a layer through a variable of the Python module, which follows the model that runs."""

    def forward(self, x: Tensor) -> Tensor:
        for child in self.blocks:
            x = child(x).tanh()
        return x * batch_of(x) + CALLED[0](x)


@pytest.mark.parametrize("tapped", [[0], [6], [1, 5]])
def test_only_the_fold_that_makes_a_difference_is_undone(tapped: list[int]) -> None:
    model = trained(Global(blocks=nn.ModuleList(block() for _ in range(7))))

    def tap(x: Tensor) -> Any:
        running = sys._getframe(1).f_locals["self"]
        return sum(running.blocks[i].conv(x) for i in tapped)

    CALLED[:] = [tap]
    inputs = values(*EXAMPLE)
    fused = fx_fuse(model, inputs)
    assert_equal(run(model, (inputs,)), run(fused, (inputs,)))
    assert reasons(fused) == {(f"blocks.{i}.bn", Reason.DIFFERS) for i in tapped}
    assert folds(fused) == [f"blocks.{i}.bn" for i in range(7) if i not in tapped]
