"""Hazard 35: untraced code goes through a slice of a container."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from fxfuse import Reason
from tests.hazards.blocks import assert_decided, assert_stays, batch_of, block, layers, sequence
from tests.support.helpers import Model, folds, trained, values


class Slices(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x) * batch_of(x)
        for child in self.blocks[1:]:
            x = child(x)
        return x


class Ends(Model):
    start = 1

    def forward(self, x: Tensor) -> Tensor:
        for number, child in enumerate(reversed(self.blocks[: self.start])):
            x = child(x) * batch_of(x) + number
        return x + sum(child(x) for child in self.blocks[-1:])


@pytest.mark.parametrize("example", [None, (2, 3, 6, 6)])
@pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
@pytest.mark.parametrize("cls", [Slices, Ends])
def test_elements_of_a_slice_that_are_only_called_fold(
    cls: type[Model], container: Any, example: tuple[int, ...] | None
) -> None:
    children = [block(), sequence()]
    model = trained(cls(blocks=container(*children) if container is nn.Sequential else container(children)))
    inputs = None if example is None else values(*example)
    assert_decided(model, folded=["blocks.0.bn", "blocks.1.1"], example_inputs=inputs)


class OpensAPart(Model):
    def forward(self, x: Tensor) -> Tensor:
        for child in self.blocks[:1]:
            x = child(x) * batch_of(x)
        last = self.blocks[1:]
        y: Tensor = last[0][0](x)
        return y + x


def test_elements_of_a_slice_that_may_be_opened_stay() -> None:
    model = trained(OpensAPart(blocks=nn.ModuleList([block(), sequence()])))
    assert "blocks.1.1" not in folds(assert_stays(model, ["blocks.1.1"], because={Reason.OPAQUE}))


class CallsParts(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * batch_of(x)
        return self.blocks[:3](x), self.blocks[:1](x)


def test_each_layer_of_a_sequence_of_which_a_part_is_called_may_be_its_last() -> None:
    fused = assert_stays(trained(CallsParts(blocks=nn.Sequential(block(), *layers().values()))), ["blocks.2"])
    assert folds(fused) == ["blocks.0.bn"]


class OwnParts(nn.Sequential):
    def __getitem__(self, part: Any) -> Any:
        return [layer for child in super().__getitem__(part) for layer in (child.conv, child.bn)]


class CallsOwnParts(Model):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.blocks[:1]:
            x = layer(x) + batch_of(x)
        return x


def test_a_class_may_have_other_parts() -> None:
    assert_stays(trained(CallsOwnParts(blocks=OwnParts(block()))), ["blocks.0.bn"])
