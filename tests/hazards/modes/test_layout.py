"""Hazard 16: where it hangs on how a value lies in memory what a model gives, a fold must not change that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.hazards.modes.test_memory import Function, conv, made
from tests.support.helpers import Model, Structure, assert_same, folds, trained, values


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


def in_order(m: Any, x: Tensor) -> Tensor:
    return m.conv(x)[:, 1:].contiguous()


def copied_in_order(m: Any, x: Tensor) -> Tensor:
    return m.conv(x)[:, 1:].clone(memory_format=torch.contiguous_format)


def copied(m: Any, x: Tensor) -> Tensor:
    return m.conv(x)[:, 1:].clone()


def of_a_transposed(m: Any, x: Tensor) -> Tensor:
    return m.conv(x).transpose(2, 3).contiguous()[:, 1:]


@pytest.mark.parametrize(
    ("part", "reason"),
    [(in_order, None), (copied_in_order, None), (copied, Reason.LAYOUT), (of_a_transposed, Reason.LAYOUT)],
)
def test_behind_a_part_that_is_put_in_order_the_rest_of_the_model_can_be_told_nothing(
    part: Function, reason: Reason | None, structure: Structure
) -> None:
    model = made(lambda m, x: m.norm(part(m, x)).view(x.shape[0], -1), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(3))
    fused = fx_fuse(model, structure=structure)
    assert {d.reason for d in Report.of(fused).decisions} == {reason}
    for x in (values(2, 3, 5, 6), values(1, 3, 5, 6), values(2, 3, 1, 1)):
        assert_same(model, fused, x)
        if reason is None:  # the others do not take it
            assert_same(model, fused, x.to(memory_format=torch.channels_last))


def test_what_is_put_in_order_may_be_the_part_itself(structure: Structure) -> None:
    def function(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.conv(x)
        z = m.norm(y[:, 1:].contiguous())
        z.add_(1)
        return z, y[:, :1]

    model = made(function, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(3))  # type: ignore[arg-type] # two values
    fused = fx_fuse(model, structure=structure)
    for batch in (1, 2):
        assert_same(model, fused, values(batch, 3, 5, 6))


class Squeezed(Model):
    """As squeeze-and-excitation is written: the view is of one pixel, which lies in memory in one way."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x) + x
        weight = torch.relu(self.down(y.mean((2, 3), keepdim=True))).view(-1, 2, 1, 1)
        return y * torch.sigmoid(self.up(weight))


class Viewed(Squeezed):
    """The view is of more than one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x) + x
        return y * torch.sigmoid(self.up(torch.relu(self.down(y)).view(-1, 2, 6, 6)))


@pytest.mark.parametrize("cls", [Squeezed, Viewed])
def test_a_view_of_one_pixel_depends_on_no_strides(cls: type[Model]) -> None:
    one = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))  # which proves that there are four axes
    model = trained(cls(one=one, down=nn.Conv2d(4, 2, 1), up=nn.Conv2d(2, 4, 1)))
    merged = ["add", "one.1"] if cls is Squeezed else ["one.1"]
    x = values(2, 4, 6, 6)
    fused = fx_fuse(model)
    assert folds(fused) == merged
    assert_same(model, fused, x)
    assert_same(model, fused, x.contiguous(memory_format=torch.channels_last) if cls is Squeezed else x)
