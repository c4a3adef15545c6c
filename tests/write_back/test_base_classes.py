"""Hazard 36: methods of base classes without a forward, which keep, load or set up models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import Block, layers
from tests.hazards.tracing.test_other_methods import assert_method_kept
from tests.support.helpers import assert_equal, folds, trained, values


class Taps(nn.Module):
    """A base class without a forward, as those that keep and load models are."""

    def other(self, x: Tensor) -> Any:
        return next(self.children())(x)


class Typed(nn.Module):
    def other(self, x: Tensor) -> Any:
        for layer in self.children():
            return layer(x)
        return x


class Switches(nn.Module):
    def other(self, x: Any) -> Any:
        object.__setattr__(self, "plain", True)
        return self(x)


class Switched(Switches):
    conv: nn.Module
    bn: nn.Module

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.plain = False
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.plain else self.bn(y)


@pytest.mark.parametrize("base", [Taps, Typed])
def test_a_method_of_a_base_class_without_a_forward_that_uses_a_part_keeps_the_norm(base: type[nn.Module]) -> None:
    assert_method_kept(trained(type("Both", (Block, base), {})(**layers())), "bn")


def test_a_method_of_a_base_class_without_a_forward_that_switches_keeps_the_norm() -> None:
    model = trained(Switched(**layers()))
    fused: Any = fx_fuse(model, structure="module")
    x = values(2, 3, 6, 6)
    with torch.no_grad():
        assert_equal(model(x), fused(x))
        assert_equal(model.other(x), fused.other(x))


class Saved(nn.Module):
    """What keeps, counts or hands over layers computes nothing with them."""

    def save(self, path: str, names: Any = None) -> Any:
        return torch.nn.Sequential(*self.children()) if path else names

    def of(self, names: Any) -> Any:
        return [layer for name, layer in self.named_children() if name in names]


def test_a_base_class_that_hands_over_layers_allows_the_fold() -> None:
    fused: Any = fx_fuse(trained(type("Both", (Block, Saved), {})(**layers())), structure="module")
    assert folds(fused) == ["bn"]
