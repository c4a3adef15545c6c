"""A forward that raises for wrong inputs is traced, and its graph raises for them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Checked(Model):
    """Looks at what it gets, in one of several ways."""

    def __init__(self, check: Callable[[Any, Tensor], None]) -> None:
        super().__init__(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
        self.check = check

    def forward(self, x: Tensor) -> Tensor:
        self.check(self, x)
        y: Tensor = self.norm(self.conv(x))
        return y


def channels(model: Any, x: Tensor) -> None:
    if x.shape[1] != model.conv.in_channels:
        raise ValueError(f"{x.shape[1]} channels, and not {model.conv.in_channels}")


def axes(_: Any, x: Tensor) -> None:
    if x.dim() != 4:
        message = "no image"
        raise RuntimeError(message)


def sides(_: Any, x: Tensor) -> None:
    if x.shape[2] < 5 or x.shape[3] < 5:
        raise ValueError("too small")


def divides(_: Any, x: Tensor) -> None:
    if not x.shape[-1] % 2 == 0:
        raise ValueError("an odd number of columns")


def kind(_: Any, x: Tensor) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"a {type(x)}")


def nested(model: Any, x: Tensor) -> None:
    if model.conv.in_channels == 3:
        channels(model, x)


CHECKS = [
    (channels, (2, 4, 6, 6)),
    (sides, (2, 3, 4, 6)),
    (sides, (2, 3, 6, 4)),
    (divides, (2, 3, 6, 5)),
    (nested, (2, 4, 6, 6)),
]


@pytest.mark.parametrize("check", [channels, axes, sides, divides, kind, nested])
def test_a_norm_behind_a_check_folds(structure: Structure, check: Any) -> None:
    assert_fuses(trained(Checked(check)), values(2, 3, 6, 6), folded=["norm"], structure=structure)


@pytest.mark.parametrize(("check", "shape"), CHECKS)
def test_the_check_stays(structure: Structure, check: Any, shape: tuple[int, ...]) -> None:
    model = Checked(check).double().eval()
    x = values(*shape)
    fused = fx_fuse(model, structure=structure)
    for one in (model, fused):
        with pytest.raises((ValueError, AssertionError)):
            one(x)


class ByRank(Model):
    """Looks a number of axes up, as the layers of einops do; there is nothing to trace before it but values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip({3: 1, 4: 1}[x.relu().dim()])


def test_a_layer_that_looks_up_a_number_of_axes_is_left_whole_and_no_more(structure: Structure) -> None:
    model = trained(nn.Sequential(ByRank(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), folded=["2"], structure=structure)


def test_the_reason_says_where_code_was_not_traced() -> None:
    model, x = trained(nn.Sequential(nn.Conv2d(3, 4, 1), ByRank(), nn.BatchNorm2d(4))), values(2, 3, 6, 6)
    (left,) = Report.of(fx_fuse(model, x)).norms_left
    assert "(in code that was not traced)" in left.detail


class ByHand(nn.Module):
    """A norm of the user's, of which the shape of the constants hangs on the number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(values(4)), nn.Parameter(values(4))
        self.running_mean, self.running_var = nn.Buffer(values(4)), nn.Buffer(values(4).square() + 0.3)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        y = (x - self.running_mean.view(shape)) / (self.running_var.view(shape) + 1e-5).sqrt()
        return y * self.weight.view(shape) + self.bias.view(shape)


@pytest.mark.parametrize("example", [False, True])
def test_a_norm_by_hand_that_asks_for_its_axes_stays_and_is_told(example: bool) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), ByHand()).double().eval(), values(2, 3, 6, 6)
    fused = fx_fuse(model, x if example else None)
    assert [(d.path, d.reason) for d in Report.of(fused).norms_left] == [("1", Reason.OPAQUE)]
    assert_same(model, fused, x)
    program = fx_fuse(torch.export.export(model, (x,)))
    assert not Report.of(program).norms_left
    assert_same(model, program.module(), x)
