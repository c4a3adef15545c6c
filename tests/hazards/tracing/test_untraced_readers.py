"""Untraced code that reads something of a block: what is read stays what it is."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import Block, assert_decided, assert_stays, batch_of, block, layers
from tests.support.helpers import Model, folds, trained, values

# -- what is read of a child stays what it is


class Encoder(Block):
    @property
    def output_stride(self) -> int:
        return self.conv.stride[0]

    def forward_features(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class ReadsStride(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.block.output_stride * batch_of(x) * self.block.conv.stride[0]


class CallsFeatures(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block.forward_features(x) * batch_of(x)


class ReadsEps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.block.bn.eps * batch_of(x)


class ReadsWeight(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.block.conv.weight.mean() * batch_of(x)


class ReadsBias(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * (2 if self.block.conv.bias is None else 3) * batch_of(x)


class AsksForNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        factor = 2 if isinstance(self.block.bn, nn.BatchNorm2d) else 3
        return self.block(x) * factor * batch_of(x)


def test_a_property_and_an_attribute_can_be_read() -> None:
    model = trained(ReadsStride(block=Encoder(**layers())))
    assert_decided(model, folded=["block.bn"])
    fused: Any = assert_decided(model, folded=["block.bn"], example_inputs=values(2, 3, 6, 6))
    assert fused.block.output_stride == 1


@pytest.mark.parametrize("cls", [ReadsEps, ReadsWeight, AsksForNorm])
def test_what_is_read_of_a_layer_stays(cls: type[Model]) -> None:
    assert_decided(trained(cls(block=block())), left={"block.bn": Reason.OPAQUE})


def test_a_bias_that_is_asked_for_is_not_added() -> None:
    model = ReadsBias(block=Block(conv=nn.Conv2d(3, 3, 3, bias=False), bn=nn.BatchNorm2d(3)))
    assert_decided(trained(model), left={"block.bn": Reason.OPAQUE})


def test_the_method_of_a_child_is_never_wrong() -> None:
    model = trained(CallsFeatures(block=Encoder(**layers())))
    assert_stays(model, ["block.bn"])


# -- a helper that asks a container for its children


def in_turn(layers: Any, x: Tensor) -> Tensor:
    if isinstance(layers, nn.Sequential):
        layers = layers.children()
    for layer in layers:
        x = layer(x)
    return x


def flat(layers: Any, x: Tensor) -> Tensor:
    if isinstance(layers, nn.Module):
        layers = layers.children()
    for layer in layers:
        x = layer(x)
    return x


class InTurn(Model):
    def forward(self, x: Tensor) -> Tensor:
        return in_turn(self.blocks, x) * batch_of(x)


class Flat(Model):
    def forward(self, x: Tensor) -> Tensor:
        return flat(self.blocks[0], x) * batch_of(x)


def test_what_a_helper_gets_stays_and_folds_on_a_run() -> None:
    model = trained(InTurn(blocks=nn.Sequential(block(), block())))
    assert_stays(model, ["blocks.0.bn", "blocks.1.bn"])
    assert_decided(model, folded=["blocks.0.bn", "blocks.1.bn"], example_inputs=values(2, 3, 6, 6))


def test_the_children_of_what_may_be_any_module_stay() -> None:
    model = trained(Flat(blocks=nn.ModuleList([block(), block()])))
    assert not folds(fx_fuse(model))
