"""Hazards 10, 12: which statistics a norm uses is what torch says, and so are the axes that it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, explain, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, values

X = (2, 3, 5, 6)


class Normed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.conv(x)))


def normed(norm: nn.Module) -> Normed:
    return trained(Normed(conv=nn.Conv2d(3, 4, 1), norm=norm, second=nn.BatchNorm2d(4)))


class Functional(Model):
    options: dict[str, Any]

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(self.conv(x), self.mean, self.var, **self.options)


class Own2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)


class Own1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)


def tracking() -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(4, affine=True, track_running_stats=True)


def test_an_instance_norm_with_running_statistics_folds(structure: Structure) -> None:
    assert_fuses(normed(tracking()), values(*X), folded=["norm", "second"], structure=structure)


def test_an_instance_norm_that_no_longer_tracks_statistics_stays(structure: Structure) -> None:
    model = normed(tracking())
    model.norm.track_running_stats = False
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*X))
    assert "norm" not in folds(fused)


def test_an_instance_norm_in_training_mode_stays(structure: Structure) -> None:
    model = normed(tracking())
    model.norm.train()
    assert "norm" not in folds(fx_fuse(model, structure=structure))


@pytest.mark.parametrize(
    ("options", "folded"), [({}, 0), ({"use_input_stats": True}, 0), ({"use_input_stats": False}, 1)]
)
def test_a_function_uses_the_statistics_of_the_instance_unless_told(
    options: dict[str, Any], folded: int, structure: Structure
) -> None:
    model = Functional(conv=nn.Conv2d(3, 4, 1), mean=values(4), var=values(4).abs() + 1)
    model.options = options
    fused = fx_fuse(model.double().eval(), structure=structure)
    assert len(folds(fused)) == folded


@pytest.mark.parametrize(("norm", "assumed"), [(Own2d, False), (Own1d, True)])
def test_the_class_that_calls_a_function_says_how_many_axes_there_are(norm: type[nn.Module], assumed: bool) -> None:
    model = trained(nn.Sequential(nn.Linear(3, 4) if assumed else nn.Conv2d(3, 4, 1), norm(4)))
    (decision,) = Report.of(fx_fuse(model)).folded
    assert decision.assumed is assumed


def test_a_norm_of_fewer_axes_than_its_input_names_the_input() -> None:
    (decision,) = explain(trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm1d(4)))).skipped
    assert decision.reason is Reason.NOT_PER_CHANNEL
    assert "output channels of 0 (4 channels on axis -3" in decision.detail


def test_a_group_norm_whose_axes_were_only_seen_keeps_its_weight() -> None:
    """What a convolution takes for an image of one sample is a batch to the norm before it."""
    norm = nn.GroupNorm(2, 4)
    with torch.no_grad():
        norm.weight.copy_(values(4))
        norm.bias.copy_(values(4))
    model = nn.Sequential(nn.ReLU(), norm, nn.Conv2d(4, 5, 1)).double().eval()
    fused = assert_fuses(model, values(4, 4, 6), left={"1": Reason.UNKNOWN_SHAPE}, example_inputs=values(2, 4, 6, 6))
    assert_same(model, fused, values(2, 4, 6, 6))
