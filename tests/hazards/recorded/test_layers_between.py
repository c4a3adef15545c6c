"""A layer between a convolution and its norm, in code that was watched: it checks what it gets, and is checked."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Reason, Report, fx_fuse
from tests.support.helpers import Model, assert_same, folds, reasons, trained, values

X = values(2, 4, 9, 9)


class Shuffle(nn.Module):
    """A shuffle of channels that can be traced."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.size()
        return x.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)


class Between(Model):
    """A handler of errors keeps it from being traced."""

    way = ""

    def forward(self, x: Tensor) -> Any:
        try:
            y = self.conv(x)
        except ValueError:
            return x
        return self.others[self.way](self, y)

    others: Any = {  # noqa: RUF012 - constants
        "": lambda m, y: m.bn(m.between(y)),
        "past it": lambda m, y: m.bn(y),
        "twice": lambda m, y: m.bn(m.between(m.between(y))),
        "its result elsewhere": lambda m, y: m.between(y) * 2,
        "its result leaves": lambda m, y: m.between(y),
        "on something else": lambda m, y: (m.bn(m.between(y)), m.between(torch.ones(2, 8, 7, 7))),
        "the layer elsewhere": lambda m, y: m.bn(m.between(y)) + y,
        "the norm first": lambda m, y: m.between(m.bn(y)),
    }


LAYERS: list[tuple[Any, int]] = [
    *((nn.Identity, 8), (nn.Dropout, 8), (Shuffle, 8)),
    *((lambda: nn.ChannelShuffle(4), 8), (lambda: nn.PixelShuffle(2), 2), (lambda: nn.Upsample(scale_factor=2), 8)),
    *((lambda: nn.AvgPool2d(2), 8), (lambda: nn.AdaptiveAvgPool2d(1), 8), (lambda: nn.ReflectionPad2d(1), 8)),
]


def model_of(make: Any = lambda: nn.AvgPool2d(2), channels: int = 8) -> Any:
    return trained(Between(conv=nn.Conv2d(4, 8, 3), between=make(), bn=nn.BatchNorm2d(channels)))


@pytest.mark.parametrize(("make", "channels"), LAYERS)
def test_a_norm_behind_a_layer_that_an_affine_passes_folds(make: Any, channels: int) -> None:
    model = model_of(make, channels)
    fused: Any = fx_fuse(model, X)
    assert folds(fused) == ["bn"]
    assert [decision.evidence for decision in Report.of(fused).folded] == ["recorded"]
    for result in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        for x in (X, values(3, 4, 12, 8)):
            assert_same(model, result, x)


@pytest.mark.parametrize("way", [way for way in Between.others if way])
def test_another_way_past_the_layer_is_an_error(way: str) -> None:
    fused: Any = fx_fuse(model_of(nn.Identity), X)
    fused.way = way
    with pytest.raises(FuseError, match=r"fxfuse folded '(conv|between)' and"):
        fused(X)


class SetsAFew(Between):
    """Untraced code that sets what a layer of torch reads: its padding, or its eps."""

    def forward(self, x: Tensor) -> Any:
        try:
            self.sets(x)
        except ValueError:
            return x
        return self.bn(self.between(self.conv(x)))


class SetsPadding(SetsAFew):
    def sets(self, x: Tensor) -> None:
        self.between.padding = int(x.shape[0] == 3)


class SetsEps(SetsAFew):
    def sets(self, x: Tensor) -> None:
        self.bn.eps = 1.0 if x.shape[0] == 3 else 1e-5


class SetsByText(SetsAFew):
    def sets(self, x: Tensor) -> None:
        setattr(self.between, "padding", int(x.shape[0] == 3))  # noqa: B010 - this is the point


@pytest.mark.parametrize("cls", [SetsPadding, SetsEps, SetsByText])
def test_a_layer_of_which_untraced_code_sets_something_keeps_the_norm(cls: type[Model]) -> None:
    model = trained(cls(conv=nn.Conv2d(4, 8, 3), between=nn.AvgPool2d(2), bn=nn.BatchNorm2d(8)))
    fused = fx_fuse(model, X)
    assert not folds(fused)
    for x in (X, values(3, 4, 9, 9)):
        assert_same(model, fused, x)


class AsksInOneRun(Model):
    def forward(self, x: Tensor) -> Any:
        factor = x.permute(0, 2, 1).mean() if x.dim() == 3 else 1
        return self.bn(self.conv(x)) * factor


def test_what_one_run_did_with_a_value_proves_nothing_of_its_axes() -> None:
    model = trained(AsksInOneRun(conv=nn.Conv1d(3, 5, 3), bn=nn.BatchNorm1d(5)))
    fused: Any = fx_fuse(model, values(2, 3, 7))
    assert folds(fused) == ["bn"]
    assert_same(model, fused, values(4, 3, 9))
    with pytest.raises(ValueError, match="folded 'bn' for inputs with 3 axes"):
        fused(values(3, 7))


class CallsTwice(Between):
    others: Any = {"": lambda m, y: m.bn(m.between(y)) + m.between(y.detach() * 0 + 1).mean()}  # noqa: RUF012


def test_a_layer_that_is_called_elsewhere_too_keeps_the_norm() -> None:
    model = trained(CallsTwice(conv=nn.Conv2d(4, 8, 3), between=nn.AvgPool2d(2), bn=nn.BatchNorm2d(8)))
    fused = fx_fuse(model, X)
    assert not folds(fused)
    assert reasons(fused) <= {("bn", Reason.SEVERAL_USES), ("bn", Reason.OWN_FORWARD)}
    assert_same(model, fused, X)
