"""``fold_padding``: zeros that are padded before a convolution are padded by the convolution itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import Model, assert_fuses, assert_same, folds, trained, values
from tests.support.samples import graph_text, lines, only, parameter

SHAPE = (2, 3, 7, 6)
INPUT = {1: (2, 3, 7), 2: SHAPE, 3: (2, 3, 5, 4, 6)}


class Padded(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(F.pad(x, self.widths)))


class Functional(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(F.conv2d(F.pad(x, (1, 1, 2, 2)), self.weight, None, 2, (0, 1)))


def test_before_and_after() -> None:
    fused = assert_fuses(trained(Functional(weight=parameter(4, 3, 3, 3))), values(*SHAPE), folded=["pad"])
    assert graph_text(fused) == lines("""
        x = <input>
        weight = self.weight
        conv2d = conv2d(x, weight, None, 2, [2, 2])
        relu = relu(conv2d)
        return relu
    """)
    decision = only(Report.of(fused).folded)
    assert (decision.rule, decision.into) == ("fold_padding", ("conv2d",))


CONVOLUTIONS: list[tuple[Any, tuple[int, ...]]] = [
    (nn.Conv1d(3, 4, 3), (2, 2)),
    (nn.Conv2d(3, 4, 3), (1, 1, 1, 1)),
    (nn.Conv2d(3, 4, 3), (1, 1)),
    (nn.Conv2d(3, 4, 3), (1, 1, 0, 0, 0, 0)),
    (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, dilation=2), (1, 1, 2, 2)),
    (nn.Conv2d(3, 4, (1, 3), padding="same"), (0, 0, 1, 1)),
    (nn.Conv2d(3, 4, 2, padding="same"), (1, 0, 1, 0)),
    (nn.Conv2d(3, 4, 3, padding_mode="reflect"), (1, 1, 1, 1)),
    (nn.Conv3d(3, 4, 3, bias=False), (1, 1, 2, 2, 0, 0)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("conv", "widths"), CONVOLUTIONS, ids=[str(n) for n in range(len(CONVOLUTIONS))])
def test_the_padding_goes(conv: nn.Module, widths: tuple[int, ...]) -> None:
    model = trained(Padded(conv=conv, widths=widths))
    x = values(*INPUT[len(conv.kernel_size)])  # type: ignore[arg-type] # of a convolution
    fused = assert_fuses(model, x, folded=["pad"])
    assert_same(model, fused, torch.cat([x, x], -1))
    assert "pad(" not in graph_text(fused)
    assert_same(model, fx_fuse(torch.export.export(model, (x,))).module(), x)


def test_a_module_that_pads_goes_with_the_norm() -> None:
    model = trained(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    fused = assert_fuses(model, values(*SHAPE), folded=["0", "2"])
    assert list(dict(fused.named_children())) == ["1", "3"]


def test_several_convolutions_take_the_padding_or_none() -> None:
    class Two(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = F.pad(x, (1, 1, 1, 1))
            return torch.relu(self.one(y)) * torch.relu(self.two(y))

    model = trained(Two(one=nn.Conv2d(3, 4, 3), two=nn.Conv2d(3, 4, 3)))
    assert_fuses(model, values(*SHAPE), folded=["pad"])
    model.two = trained(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))
    model.one.padding = (1, 1)
    assert_fuses(model, values(*SHAPE))


CHAIN = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ZeroPad2d(1), nn.Conv2d(4, 5, 3))


def test_layers_with_a_padding_between_them_become_one() -> None:
    fused = assert_fuses(trained(CHAIN), values(*SHAPE), folded=["0", "1"])
    assert list(dict(fused.named_children())) == ["2"]


STAYS: list[tuple[Any, tuple[int, ...]]] = [
    (nn.Conv2d(3, 4, 3), (0, 1, 0, 1)),  # more on one side
    (nn.Conv2d(3, 4, 3), (-1, -1, 0, 0)),  # cut off
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (1, 1, 1, 1)),
    (nn.Conv2d(5, 4, 3), (0, 0, 0, 0, 1, 1)),  # channels are padded
    (nn.ConvTranspose2d(3, 4, 3), (1, 1, 1, 1)),
    (nn.Linear(8, 4), (1, 1)),
]


@pytest.mark.parametrize(("conv", "widths"), STAYS, ids=[str(n) for n in range(len(STAYS))])
def test_padding_that_the_layer_has_no_words_for_stays(conv: nn.Module, widths: tuple[int, ...]) -> None:
    assert_fuses(trained(Padded(conv=conv, widths=widths)), values(*SHAPE))


class Ones(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(F.pad(x, (1, 1, 1, 1), value=1.0)))


class Repeated(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(F.pad(x, (1, 1, 1, 1), mode="replicate")))


class Valid(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.conv.weight, None, 1, "valid"))


class ReadTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (1, 1, 1, 1))
        return torch.relu(self.conv(y)) * y[:, :1, 1:-1, 1:-1]


class Written(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = x.sin()
        y = F.pad(x, (1, 1, 1, 1))
        x.mul_(2)
        return torch.relu(self.conv(y)) * x[:, :1]


@pytest.mark.parametrize("cls", [Ones, Repeated, Valid, ReadTwice, Written])
def test_padding_that_something_else_needs_stays(cls: type[Model]) -> None:
    assert_fuses(trained(cls(conv=nn.Conv2d(3, 4, 3))), values(*SHAPE))


def test_a_layer_of_a_class_that_goes_on_running_keeps_its_padding() -> None:
    model = trained(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.ReLU()))
    assert not folds(assert_fuses(model, values(*SHAPE), structure="module"))


def test_a_layer_that_is_called_twice_is_copied() -> None:
    class Both(Model):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(F.pad(x, (1, 1, 1, 1)))).sum((2, 3)) + torch.relu(self.conv(x)).sum((2, 3))

    assert_fuses(trained(Both(conv=nn.Conv2d(3, 4, 3))), values(*SHAPE), folded=["pad"])
