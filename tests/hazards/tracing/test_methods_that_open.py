"""Hazard 36: other methods that go through the layers of their module, and call or only count them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import Block, layers, sequence
from tests.support.helpers import Model, assert_equal, folds, trained, unchanged, values


class Truncated(Block):
    def other(self, x: Tensor) -> Any:
        return nn.Sequential(*list(self.children())[:-1])(x)


class Collected(Block):
    def other(self, x: Tensor) -> Any:
        found = {}
        for name, layer in self._modules.items():
            called: Any = layer
            x = found[name] = called(x)
        return list(found.values())


class ByItsPath(Block):
    def other(self, x: Tensor) -> Any:
        return self.get_submodule("conv")(x)


class ByNames(Block):
    def other(self, x: Tensor) -> Any:
        x = self.bn(self.conv(x))
        names: Any = ("conv", "bn")
        names = names[:1]
        for name in names:
            x = getattr(self, name)(x)
        return x


class InACircle(Block):
    def other(self, x: Tensor) -> Any:
        one = two = "conv"
        one = two
        two = one
        return self.bn(self.conv(x)) + getattr(self, one)(x)


NAMES = ["conv"]


class ByNamesOfTheFile(Block):
    def other(self, x: Tensor) -> Any:
        y = self.bn(self.conv(x))
        for name in NAMES:
            y = y + getattr(self, name)(x)
        return y


class ByAListThatGrows(Block):
    def other(self, x: Tensor) -> Any:
        names: list[str] = []
        names.append("conv")
        y = self.bn(self.conv(x))
        for name in names:
            y = y + getattr(self, name)(x)
        return y


class ByForward(Block):
    def other(self, x: Tensor) -> Any:
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)][0].forward(x)  # noqa: RUF015


class Backbone(Block):
    def backbone(self) -> Any:
        return nn.Sequential(*list(self.children())[:1])

    def other(self, x: Tensor) -> Any:
        return self.backbone()(x)


class InABlock(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(x)

    def other(self, x: Tensor) -> Any:
        return [*self.block][0](x)  # noqa: RUF015 - this is the point


class ByAPath(InABlock):
    def other(self, x: Tensor) -> Any:
        return self.get_submodule("block.0")(x)


class ByAComprehension(InABlock):
    def other(self, x: Tensor) -> Any:
        return [layer for layer in self.block][0](x)  # noqa: C416, RUF015 - this is the point


class Sliced(InABlock):
    def other(self, x: Tensor) -> Any:
        return next(itertools.islice(self.block, 1))(x)


@pytest.mark.parametrize("cls", [InABlock, ByAPath, ByAComprehension, Sliced])
def test_a_method_that_opens_a_block_gives_what_it_gave(cls: type[Model]) -> None:
    model: Any = trained(cls(block=sequence()))
    fused: Any = fx_fuse(model, structure="module")
    assert not folds(fused)
    x = values(2, 3, 6, 6)
    with torch.no_grad():
        assert_equal(model.other(x), fused.other(x))


OPENING = [
    *(Truncated, Collected, ByItsPath, ByNames, InACircle, Backbone, ByNamesOfTheFile, ByAListThatGrows, ByForward),
]


@pytest.mark.parametrize("cls", OPENING)
def test_a_method_that_calls_what_it_finds_gives_what_it_gave(cls: type[Model]) -> None:
    model: Any = trained(cls(**layers()))
    with unchanged(model):
        fused: Any = fx_fuse(model, structure="module")
    assert not folds(fused)
    with torch.no_grad():
        for x in (values(2, 3, 6, 6), values(6, 3, 6, 6)):
            for name in ("forward", "other"):
                assert_equal(getattr(model, name)(x), getattr(fused, name)(x))


class Stages(Model):
    """As in timm's ``forward_intermediates``."""

    def forward(self, x: Tensor) -> Any:
        return self.layer2(self.layer1(self.bn(self.conv(x))))

    def other(self, x: Tensor) -> Any:
        x, found = self.bn(self.conv(x)), []
        names: Any = ("layer1", "layer2")
        if x.shape[0] > 4:
            names = names[:1]
        for name in names:
            layer = getattr(self, name)
            x = layer(x)
            found.append(x)
        return found


def test_a_method_that_calls_layers_by_computed_names_gives_what_it_gave() -> None:
    model: Any = trained(Stages(**layers(), layer1=nn.ReLU(), layer2=nn.Sigmoid()))
    fused: Any = fx_fuse(model, structure="module")
    with torch.no_grad():
        for x in (values(2, 3, 6, 6), values(6, 3, 6, 6)):
            assert_equal([model(x), model.other(x)], [fused(x), fused.other(x)])
    assert folds(fx_fuse(model, structure="graph")) == ["bn"]


class Counts(Block):
    def freeze(self) -> None:
        for layer in self.modules():
            layer.eval()
        for parameter in self.parameters():
            parameter.requires_grad = False

    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def test_a_method_that_only_counts_or_freezes_allows_the_fold() -> None:
    model = trained(Counts(**layers()))
    fused = fx_fuse(model, structure="module")
    assert folds(fused) == ["bn"]


def around(function: Any) -> Any:
    @functools.wraps(function)
    def inner(model: Any, *arguments: Any) -> Any:
        model = model if arguments else None
        return function(model, *arguments)

    return inner


class CannotBeRead(Block):
    @around
    def other(self, x: Tensor) -> Any:
        return self.bn(self.conv(x))


def test_a_method_that_cannot_be_read_is_no_fault() -> None:
    model: Any = trained(CannotBeRead(**layers()))
    fused: Any = fx_fuse(model, structure="module")
    x = values(2, 3, 6, 6)
    with torch.no_grad():
        assert_equal(model(x), fused(x))
        assert_equal(model.other(x), fused.other(x))


class TapsElements(Model):
    def forward(self, x: Tensor) -> Any:
        return self.blocks(x)

    def firsts(self, x: Tensor) -> Any:
        return [block[0](x) for block in self.blocks]

    def first(self, x: Tensor) -> Any:
        return self.blocks[0][0](x)

    def all(self, x: Tensor) -> Any:
        found = [x]
        for block in self.blocks:
            for layer in block:
                found.append(layer(found[-1]))
        return found


@torch.no_grad()
@pytest.mark.parametrize("name", ["firsts", "first", "all"])
def test_methods_that_take_elements_of_elements_apart_give_what_they_gave(name: str) -> None:
    cls = type("Taps", (Model,), {"forward": TapsElements.forward, name: vars(TapsElements)[name]})
    cls.__module__ = __name__
    model: Any = trained(cls(blocks=nn.Sequential(sequence(), sequence())))
    fused: Any = fx_fuse(model, structure="module")
    x = values(2, 3, 6, 6)
    assert_equal(getattr(model, name)(x), getattr(fused, name)(x))
    assert_equal(model(x), fused(x))
