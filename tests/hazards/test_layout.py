"""Where it hangs on how a value lies in memory what a model gives, a fold must not change that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.hazards.test_memory import Function, conv, made
from tests.helpers import Model, Structure, assert_same, trained, values


def written_if_it_is_a_view(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x).transpose(2, 3))
    y.flatten(1).add_(1)
    return y


def written_if_it_is_no_copy(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x).transpose(2, 3))
    y.contiguous().add_(1)
    return y


@pytest.mark.parametrize("function", [written_if_it_is_a_view, written_if_it_is_no_copy])
def test_what_may_be_a_view_or_a_copy(structure: Structure, function: Function) -> None:
    model = made(function, **conv())
    assert_same(model, fx_fuse(model, structure=structure), values(2, 3, 5, 6))


def instances() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(4, 3, 1), "norm": nn.InstanceNorm2d(3, affine=True, track_running_stats=True)}


def test_a_norm_of_instances_puts_the_axes_in_order(structure: Structure) -> None:
    model = made(lambda m, x: m.norm(m.conv(x)).view(x.shape[0], -1), **instances())
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 4, 6, 6).to(memory_format=torch.channels_last))
    assert {d.reason for d in Report.of(fused).skipped} == {Reason.LAYOUT}


class Child(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x[:1]).expand(2, -1, -1, -1))
        return y


class WritesIntoAPart(Model):
    """Cannot be traced, and writes into what a part gives."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.child(x)
        if y.sum() > 1e9:
            return x
        y[0] += 1
        return y


def test_a_part_gives_a_value_of_its_own() -> None:
    model = trained(WritesIntoAPart(child=Child(**conv())))
    assert_same(model, fx_fuse(model), values(2, 3, 5, 6))


def test_a_result_is_a_value_of_its_own(structure: Structure) -> None:
    model, x = trained(Child(**conv())), values(2, 3, 5, 6)
    result = fx_fuse(model, structure=structure)(x)
    result[0].zero_()
    assert result[1].abs().sum() > 0


def looks_at_strides(x: Tensor) -> Tensor:
    def flat(y: Tensor) -> Tensor:
        return y.view(-1)

    return flat(x)


torch.fx.wrap("looks_at_strides")


def test_code_of_the_users_that_takes_some_strides_alone(structure: Structure) -> None:
    model = made(lambda m, x: looks_at_strides(m.norm(m.conv(x).transpose(2, 3))), **conv())
    assert_same(model, fx_fuse(model, structure=structure), values(2, 3, 5, 6))


class Pre(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.norm(x))
        return y


def test_a_block_that_is_called_twice_with_a_norm_between(structure: Structure) -> None:
    block = Pre(norm=nn.BatchNorm2d(4), conv=nn.Conv2d(4, 4, 1))
    model = trained(nn.Sequential(block, nn.GroupNorm(2, 4), block))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 4, 5, 5))
    assert_same(model, fx_fuse(fused, structure=structure), values(2, 4, 5, 5))


def test_the_sum_of_what_layers_made_lies_as_a_norm_of_it() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.conv(x).relu() + m.conv2(x))
        z: Tensor = m.last(y)
        return z.view(x.shape[0], -1)

    layers = {"conv2": nn.Conv2d(3, 4, 1), "last": nn.Conv2d(4, 2, 1)}
    model = made(function, **conv(**layers))
    fused = fx_fuse(model)
    assert Report.of(fused).folded
    assert_same(model, fused, values(2, 3, 5, 6))


def test_an_input_may_lie_in_any_order_behind_a_sum() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.last(m.norm(x + 1).view(x.shape[0], 3, 30).transpose(1, 2))
        return y

    model = made(function, norm=nn.BatchNorm2d(3), last=nn.Linear(3, 2))
    fused = fx_fuse(model)
    assert_same(model, fused, values(2, 3, 6, 5).transpose(2, 3))
