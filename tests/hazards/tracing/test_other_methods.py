"""Hazard 36: where the class is kept, its other methods give what they gave, and its forward finds what it asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import Block, assert_decided, assert_stays, layers, sequence
from tests.support.helpers import Model, assert_equal, folds, reasons, trained, unchanged, values

# -- methods that the forward does not use


class Alone(Block):
    def other(self, x: Tensor) -> Any:
        return self.conv(x)


class NormAlone(Block):
    def other(self, x: Tensor) -> Any:
        return self.bn(x)


class BothValues(Block):
    def other(self, x: Tensor) -> Any:
        y = self.conv(x)
        return y, self.bn(y)


class OtherOrder(Block):
    def other(self, x: Tensor) -> Any:
        return self.conv(self.bn(x))


class Between(Block):
    def other(self, x: Tensor) -> Any:
        return self.bn(self.conv(x).relu())


class Branching(Block):
    def other(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y) if x.shape[0] > 4 else y


class NamedAsAnOption(Block):
    def other(self, x: Tensor) -> Any:
        return self.get_features(x)

    def get_features(self, x: Tensor) -> Any:
        return self.conv(x)


class InHelper(Block):
    def other(self, x: Tensor) -> Any:
        return call(self.conv, x)


class ReadsWeight(Block):
    def other(self, x: Tensor) -> Any:
        return F.conv2d(x, self.conv.weight, self.conv.bias)


class AsProperty(Block):
    @property
    def kernel_sum(self) -> Tensor:
        return self.conv.weight.sum()

    def other(self, x: Tensor) -> Any:
        return x * self.kernel_sum


class NoGradient(Block):
    @torch.no_grad()
    def other(self, x: Tensor) -> Any:
        return self.conv(x)


class ThroughGetattr(Block):
    def other(self, x: Tensor) -> Any:
        return getattr(self, "conv")(x)  # noqa: B009 - this is the point


class TogetherAndAlone(Block):
    def other(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) + getattr(self, "conv")(x)  # noqa: B009 - this is the point


class TogetherAndLookedUp(Block):
    def other(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) + self._modules["conv"](x)  # type: ignore[misc] # it is no None


def call(function: Any, x: Tensor) -> Tensor:
    return function(x)


PARTIAL = [
    Alone, NormAlone, BothValues, OtherOrder, Between, Branching, InHelper, NamedAsAnOption, ReadsWeight, AsProperty,
    NoGradient, ThroughGetattr, TogetherAndAlone, TogetherAndLookedUp,
]  # fmt: skip


def assert_method_kept(model: Any, *paths: str, method: str = "other") -> None:
    with unchanged(model):
        fused: Any = fx_fuse(model, structure="module")
    for x in (values(2, 3, 6, 6), values(6, 3, 6, 6)):
        for name in ("forward", method):
            with torch.no_grad():
                assert_equal(getattr(model, name)(x), getattr(fused, name)(x))
    assert reasons(fused) == {(path, Reason.REACHED_INTO) for path in paths}


@pytest.mark.parametrize("cls", PARTIAL)
def test_a_method_that_uses_a_part_of_the_fold_keeps_the_norm(cls: type[Model]) -> None:
    assert_method_kept(trained(cls(**layers())), "bn")


class LoopTaps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)

    def other(self, x: Tensor) -> Any:
        found = []
        for layer in self.block:
            x = layer(x)
            found.append(x)
        return found


class Slice(LoopTaps):
    def other(self, x: Tensor) -> Any:
        return self.block[:1](x)


class Listed(LoopTaps):
    def other(self, x: Tensor) -> Any:
        inner = list(self.block)
        return inner[0](x)


@pytest.mark.parametrize("cls", [LoopTaps, Slice, Listed])
def test_a_method_that_taps_a_sequence_keeps_the_norm(cls: type[Model]) -> None:
    assert_method_kept(trained(cls(block=sequence())), "block.1")


class Stem(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def project(self, x: Tensor) -> Tensor:
        return self.conv(x)


class AroundStem(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.stem(x))

    def other(self, x: Tensor) -> Any:
        return self.stem.project(x)


def test_a_method_that_calls_the_method_of_a_child_keeps_the_norm() -> None:
    assert_method_kept(trained(AroundStem(stem=Stem(conv=nn.Conv2d(3, 3, 3)), bn=nn.BatchNorm2d(3))), "bn")


class Features(Block):
    def other(self, x: Tensor) -> Any:
        return self.features(x).relu()

    def features(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def reset(self) -> None:
        nn.init.zeros_(self.conv.weight)


def test_a_method_that_uses_the_whole_fold_allows_it() -> None:
    assert_method_kept(trained(Features(**layers())))


# -- a forward that was traced runs again as it was written: it must find what it asks for


class AsksForClass(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y.relu() if isinstance(self.bn, nn.BatchNorm2d) else y


class AsksForBias(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y if self.conv.bias is None else y.relu()


class AsksForSize(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y.reshape(-1, self.bn.num_features)


class AsksForParameters(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).to(next(self.bn.parameters()).dtype)


class AsksInLoop(Model):
    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.conv, self.bn):
            x = layer(x)
            if isinstance(layer, nn.BatchNorm2d):
                x = x.relu()
        return x


ASKING = [AsksForClass, AsksForBias, AsksForSize, AsksForParameters, AsksInLoop]


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("cls", ASKING)
def test_a_forward_that_asks_about_its_norm_keeps_it(cls: type[Model], example: tuple[int, ...] | None) -> None:
    model = trained(cls(conv=nn.Conv2d(3, 3, 3, bias=False), bn=nn.BatchNorm2d(3)))
    inputs = None if example is None else values(*example)
    allowed = {Reason.REACHED_INTO, Reason.OWN_FORWARD} | ({Reason.DIFFERS} if example else set())
    assert_stays(model, ["bn"], because=allowed, structure="module", example_inputs=inputs)
    assert_decided(model, folded=["bn"], structure="graph", example_inputs=inputs)


class HasAFusedForward(Model):  # as YOLO: what the forward is once its norm has gone into the convolution
    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)).relu()

    def forward_fuse(self, x: Tensor) -> Any:
        return self.conv(x).relu()


def test_a_method_for_the_fused_layer_gives_what_the_forward_gives() -> None:
    model, x = trained(HasAFusedForward(**layers())), values(2, 3, 6, 6)
    fused: Any = fx_fuse(model, structure="module")
    assert folds(fused) == ["bn"]
    with torch.no_grad():
        assert_equal(model(x), fused(x))
        assert_equal(model(x), fused.forward_fuse(x))
