"""Hazards 8 and 32: channels that are shuffled by views, in a graph that knows no sizes but those it can prove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = [values(2, 3, 6, 6), values(3, 3, 8, 5), values(12, 3, 14, 14), values(1, 3, 14, 6)]


def as_shufflenet(x: Tensor) -> Tensor:
    b, c, h, w = x.size()
    return x.view(b, 4, c // 4, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def with_a_size_left_open(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, 3, c // 3, h, w).permute(0, 2, 1, 3, 4).reshape(b, -1, h, w)


def of_single_sizes(x: Tensor) -> Tensor:
    y = x.view(x.size(0), 2, x.size(1) // 2, x.size(2), x.size(3))
    return y.transpose(2, 1).reshape(x.shape[0], x.shape[1], x.shape[2], x.shape[3])


class Shuffled(Model):
    change: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Any:
        return self.bn(type(self).change(self.conv(x)))


def model_of(change: Callable[[Tensor], Tensor]) -> nn.Module:
    cls: Any = type("Shuffling", (Shuffled,), {"change": staticmethod(change)})
    return trained(cls(conv=nn.Conv2d(3, 12, 3), bn=nn.BatchNorm2d(12)))


@pytest.mark.parametrize("structure", ["graph", "module"])
@pytest.mark.parametrize("change", [as_shufflenet, with_a_size_left_open, of_single_sizes])
def test_a_norm_behind_a_shuffle_of_channels_folds(change: Callable[[Tensor], Tensor], structure: Any) -> None:
    model = model_of(change)
    fused = fx_fuse(model, structure=structure)
    assert folds(fused) == ["bn"]
    assert not any(decision.assumed for decision in Report.of(fused).folded)
    for x in INPUTS:
        assert_same(model, fused, x)


def height_becomes_channels(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, 4, c // 4, h, w).transpose(2, 3).reshape(b, c, h, w)


def batch_and_height_change_places(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(h, c, b, w).transpose(0, 2).reshape(b, c, h, w)


def groups_go_into_the_batch(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b * 4, c // 4, h, w).transpose(0, 1).reshape(b, c, h, w)


@pytest.mark.parametrize("change", [height_becomes_channels, batch_and_height_change_places, groups_go_into_the_batch])
def test_a_norm_stays_where_other_axes_mix_with_the_channels(change: Callable[[Tensor], Tensor]) -> None:
    model = model_of(change)
    fused = fx_fuse(model)
    assert not folds(fused)
    for x in INPUTS:
        assert_same(model, fused, x)


# -- what is asked of the shape of a value that is reshaped in place


class ReshapesItsResult(Model):
    def forward(self, x: Tensor) -> Any:
        z = self.bn(self.conv(x))
        w = z.unsqueeze_(0)
        return w, z.shape[2]


class ReshapesTheInput(Model):
    def forward(self, x: Tensor) -> Any:
        y = x * 1
        z = self.bn(self.conv(y))
        y.unsqueeze_(0)
        return z * y.size(2)


class SlicesAfterwards(Model):
    def forward(self, x: Tensor) -> Any:
        y = x * 1
        z = self.bn(self.conv(y))
        y.unsqueeze_(0)
        return z, y[:, :, 1:]


@pytest.mark.parametrize("cls", [ReshapesItsResult, ReshapesTheInput, SlicesAfterwards])
def test_a_shape_that_is_asked_after_a_change_in_place_proves_nothing(cls: type[Model]) -> None:
    model = trained(cls(conv=nn.Conv1d(3, 5, 3), bn=nn.BatchNorm1d(5)))
    fused: Any = fx_fuse(model)
    assert [decision.assumed for decision in Report.of(fused).folded] == [True]
    with pytest.raises(ValueError, match="folded 'bn' for inputs with 3 axes"):
        fused(values(3, 7))


class ReshapesBetween(Model):
    def forward(self, x: Tensor) -> Any:
        _, _, _, _ = x.shape
        y = self.conv(x)
        y.unsqueeze_(0)
        _, _, _, _, _ = y.shape
        z = torch.cat([y, y], 4)
        return self.bn(torch.cat([z[:, :, :, :, ::2] * 2.0] * 2, 1).reshape_as(z))


def test_a_value_with_four_and_with_five_axes_is_no_fault() -> None:
    model = trained(ReshapesBetween(conv=nn.Conv2d(4, 8, 1), bn=nn.BatchNorm3d(2)))
    assert_same(model, fx_fuse(model), values(2, 4, 6, 6))


class ShuffledOften(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        for _ in range(12):
            y = as_shufflenet(y)
        return self.bn(y)


def test_a_size_is_followed_through_many_shuffles_on_one_way() -> None:  # on four at each, it would take weeks
    model = trained(ShuffledOften(conv=nn.Conv2d(3, 12, 3), bn=nn.BatchNorm2d(12)))
    fused = fx_fuse(model)
    assert folds(fused) == ["bn"]
    assert_same(model, fused, INPUTS[1])


class ViewedAsAShape(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y.view(y.shape).transpose(1, 2).reshape(y.shape).view(y.size()))


def test_a_view_to_a_whole_shape_is_no_fault() -> None:
    model = trained(ViewedAsAShape(conv=nn.Conv2d(3, 12, 3), bn=nn.BatchNorm2d(12)))
    assert_same(model, fx_fuse(model), INPUTS[0])
