"""Hazards 20, 21: what an affine can pass on its way, in both directions, and where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_same, trained, values

Function = Callable[[Tensor], Tensor]


class Onwards(Model):
    """A norm, something that it has to pass, and the layer that can take it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.relu())
        return self.last(self.between(y))


class Back(Model):
    """A layer, something, and a norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.between(self.first(x)))


class Between(nn.Module):
    """A function as a module, which is traced."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def folded(model: nn.Module, x: Tensor, structure: Structure) -> bool:
    """Fuse, compare, and say whether the norm is gone."""
    fused = fx_fuse(trained(model), structure=structure)
    assert_same(model, fused, x)
    return "norm" in {decision.path for decision in Report.of(fused).folded}


def tokens(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]).transpose(1, 2)


def sized(x: Tensor) -> Tensor:
    batch, channels = x.size(0), x.size(1)
    return x.reshape(batch, channels, -1).permute(0, 2, 1)


def pooled(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def grid(x: Tensor) -> Tensor:
    return torch.flatten(F.adaptive_avg_pool2d(x, (2, 3)), 1)


ONWARDS: list[tuple[Function, int]] = [
    (lambda x: x.mean((2, 3)), 4),
    (lambda x: x.mean(dim=[-1, -2], keepdim=True).flatten(1), 4),
    (pooled, 4),
    (grid, 24),
    (lambda x: x.permute(0, 2, 3, 1), 4),
    (lambda x: x.permute((0, 2, 3, 1)).contiguous(), 4),
    (lambda x: x.transpose(1, 3), 4),
    (lambda x: torch.transpose(x, -1, 1).clone(), 4),
    (lambda x: x.flatten(2).transpose(1, 2), 4),
    (tokens, 4),
    (sized, 4),
    (lambda x: F.avg_pool2d(x, 2, ceil_mode=True).mean((2, 3)), 4),
    (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False).mean((2, 3)), 4),
    (lambda x: F.dropout(x.permute(0, 2, 3, 1), training=False), 4),
    (lambda x: x.flatten(1), 120),
]


@pytest.mark.parametrize(("between", "features"), ONWARDS, ids=map(str, range(len(ONWARDS))))
def test_onwards(structure: Structure, between: Function, features: int) -> None:
    model = Onwards(norm=nn.BatchNorm2d(4), between=Between(between), last=nn.Linear(features, 3))
    assert folded(model, values(2, 4, 5, 6), structure)


REFUSED: list[tuple[Function, int, Reason]] = [
    (lambda x: x.permute(0, 2, 1, 3).flatten(1), 120, Reason.UNKNOWN_SIZE),  # how often each channel follows the others
    (lambda x: x.mean((1, 3)), 5, Reason.READ_BY),
    (lambda x: x.flatten(2), 30, Reason.NOT_PER_CHANNEL),
    (lambda x: F.avg_pool2d(x, 3, padding=1).mean((2, 3)), 4, Reason.ZERO_PADDING),
    (lambda x: F.avg_pool2d(x, 2, divisor_override=3).mean((2, 3)), 4, Reason.READ_BY),
    (lambda x: -F.max_pool2d(x.sigmoid(), 2).mean((2, 3)), 4, Reason.READ_BY),
    (lambda x: F.dropout(x, training=True).mean((2, 3)) * 0 + x.mean((2, 3)), 4, Reason.READ_BY),
]


@pytest.mark.parametrize(("between", "features", "reason"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_not_onwards(between: Function, features: int, reason: Reason) -> None:
    model = Onwards(norm=nn.BatchNorm2d(4), between=Between(between), last=nn.Linear(features, 3))
    x = values(2, 4, 5, 6)
    fused = fx_fuse(trained(model))
    assert_same(model, fused, x)
    (decision,) = Report.of(fused).skipped
    assert decision.downstream is reason, str(decision)


BACK: list[tuple[nn.Module, Function, nn.Module, tuple[int, ...]]] = [
    (nn.Linear(3, 4), lambda x: x.flatten(0, 1), nn.BatchNorm1d(4), (2, 5, 3)),
    (nn.Linear(3, 4), lambda x: x.permute(0, 3, 1, 2), nn.BatchNorm2d(4), (2, 5, 6, 3)),
    (nn.Linear(3, 4), lambda x: x.permute(0, 2, 1), nn.BatchNorm1d(4), (2, 5, 3)),
    (nn.Conv2d(3, 4, 3), lambda x: F.avg_pool2d(x, 2), nn.BatchNorm2d(4), (2, 3, 7, 7)),
    (nn.Conv2d(3, 4, 3), lambda x: F.adaptive_avg_pool2d(x, 3), nn.BatchNorm2d(4), (2, 3, 7, 7)),
    (nn.Conv2d(3, 4, 3), lambda x: x.contiguous(), nn.BatchNorm2d(4), (2, 3, 7, 7)),
]


@pytest.mark.parametrize(("first", "between", "norm", "shape"), BACK, ids=map(str, range(len(BACK))))
def test_back(
    structure: Structure, first: nn.Module, between: Function, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    model: Any = Back(first=first, between=Between(between), norm=norm)
    assert folded(model, values(*shape), structure)


def test_a_number_of_axes_that_only_an_input_shows() -> None:
    # Of an image without a batch axis, the channels would be the first axis of what is flattened.
    pool = Between(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1))
    model = trained(Back(first=nn.Conv2d(3, 4, 3), between=pool, norm=nn.BatchNorm1d(4)))
    x = values(2, 3, 7, 7)
    assert {d.reason for d in Report.of(fx_fuse(model)).skipped} == {Reason.UNKNOWN_SHAPE}
    assert {d.reason for d in Report.of(fx_fuse(model, x)).skipped} == {Reason.UNKNOWN_SHAPE}


def test_a_merged_batch_and_sequence_is_checked() -> None:
    model = trained(Back(first=nn.Linear(3, 4), between=Between(lambda x: x.flatten(0, 1)), norm=nn.BatchNorm1d(4)))
    fused = fx_fuse(model)
    assert Report.of(fused).folded[0].assumed
    with pytest.raises(ValueError, match="2 axes"):
        fused(values(2, 4, 5, 3))


def test_constants_do_not_grow_to_the_size_of_what_passes() -> None:
    repeated = Between(lambda x: x.mean((2, 3)).repeat(1, 300_000))
    model = trained(Onwards(norm=nn.BatchNorm2d(4), between=repeated, last=nn.Linear(1_200_000, 1)))
    decision = Report.of(fx_fuse(model)).skipped[0]
    assert decision.downstream is Reason.WOULD_GROW
    assert "1,200,000 elements" in decision.detail
