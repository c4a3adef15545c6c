"""Refusals that only a few models meet: the reason, and every word that names what stands in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse import Reason, explain, fx_fuse
from fxfuse.modules.guards import require_rank
from tests.support.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from fxfuse.report.decision import Decision


def conv(inner: int, outer: int, size: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, size, padding=size // 2)


def only(model: nn.Module, rule: str, example_inputs: Tensor | None = None) -> Decision:
    """The one decision that a rule tells."""
    skipped = explain(model, example_inputs).skipped
    (decision,) = (decision for decision in skipped if decision.rule == rule)
    return decision


class Gained(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pool(self.conv(x)) * self.gain)


def test_a_constant_with_axes_in_front_of_a_value_of_unproven_rank() -> None:
    layers = {"conv": conv(3, 4), "pool": nn.AvgPool2d(2), "bn": nn.BatchNorm2d(4)}
    decision = only(trained(Gained(**layers, gain=nn.Parameter(values(1, 4, 1, 1)))), "fold_upstream")
    assert (decision.path, decision.reason) == ("bn", Reason.UNKNOWN_SHAPE)
    assert decision.detail.startswith("the number of axes of pool is not known; ")


class Joined(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], 1) * self.gain


def test_a_constant_behind_an_axis_that_is_counted_from_the_first_needs_a_proof() -> None:
    """A norm there would check the number of axes; arithmetic checks nothing."""
    model = trained(Joined(a=conv(3, 2), b=conv(3, 2), gain=nn.Parameter(values(4, 1, 1))))
    inputs = values(2, 3, 6, 6)
    fused = fx_fuse(model, rules=["fold_upstream"])
    assert folds(fused) == []
    assert_same(model, fused, inputs)
    assert len(explain(torch.export.export(model, (inputs,)), rules=["fold_upstream"]).folded) == 1


class Viewed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).view(-1)


def test_a_merge_whose_reader_can_tell_the_layout() -> None:
    decision = only(trained(Viewed(conv=conv(3, 3))), "merge_branches")
    assert decision.reason is Reason.LAYOUT
    assert "the strides of the input would change, and view in the outermost forward depends on them" in decision.detail


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return y + y


def test_a_reader_that_reads_a_value_twice() -> None:
    decision = only(trained(Twice(norm=nn.GroupNorm(1, 3))), "fold_downstream", values(2, 3, 4, 4))
    assert decision.reason is Reason.SEVERAL_USES
    assert decision.detail.startswith(
        "norm is also used by add in the outermost forward, for which it must not change; "
    )


class WritesIntoInput(Model):
    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        y = self.one(x) + v
        y += self.three(x)
        return y


def test_a_sum_that_stays_would_write_into_an_input() -> None:
    model = trained(WritesIntoInput(one=conv(3, 3), three=conv(3, 3, 3)))
    decision = only(model, "merge_branches")
    assert decision.reason is Reason.MUTATED
    assert decision.detail.startswith("the input is changed in place by iadd in the outermost forward; ")


def test_a_layer_with_hooks_behind_another_layer() -> None:
    model: Any = trained(nn.Sequential(conv(3, 4), conv(4, 5)))
    model[1].register_forward_hook(lambda *_: None)
    decision = only(model, "merge_chain")
    assert (decision.path, decision.reason) == ("1", Reason.HOOKED)
    assert decision.detail.startswith("1 has hooks")


class Checked(Model):
    """What follows a check is named by what was checked."""

    def forward(self, x: Tensor) -> Tensor:
        y = require_rank(x, 4, "x")
        return self.bn(y) + y.sigmoid()


def test_an_input_behind_a_check_that_others_read_too() -> None:
    decision = only(trained(Checked(bn=nn.BatchNorm2d(3))), "fold_upstream")
    assert decision.reason is Reason.NOT_LINEAR
    assert decision.detail.startswith("it follows the input, ")


class CalledTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.conv(x)) + self.second(self.conv(x + 1)).relu()


def test_a_layer_that_is_called_twice_is_not_told_to_be_used_by_itself() -> None:
    model = trained(CalledTwice(conv=conv(3, 4), first=nn.BatchNorm2d(4), second=nn.BatchNorm2d(4)))
    skipped = explain(model, allow_copies=False).skipped
    assert {decision.path: decision.reason for decision in skipped} == dict.fromkeys(["first", "second"], Reason.SHARED)
    assert all(d.detail.startswith("conv is also used by another call, and must stay") for d in skipped)
