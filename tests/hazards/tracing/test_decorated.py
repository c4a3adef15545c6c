"""Hazard 34: decorated forwards: what is around one can tell how it is called, which a graph of one call cannot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, fx

from fxfuse import fx_fuse
from tests.hazards.blocks import layers
from tests.support.helpers import Model, assert_equal, trained, values

Forward: TypeAlias = Callable[..., Any]


def hands_on(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        as_tuple = kwargs.pop("as_tuple", False)
        result = forward(self, *args, **kwargs)
        return (result,) if as_tuple else result

    return wrapper


def hands_all_on(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return wrapper


def sets_a_default(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("scale", 2.0)
        return forward(self, *args, **kwargs)

    return wrapper


def looks_for_a_name(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs) * (2 if "scale" in kwargs else 1)

    return wrapper


def counts(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs) * (2 if len(args) > 1 else 1)

    return wrapper


def has_another_default(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, x: Tensor, scale: float = 2.0) -> Any:
        return forward(self, x, scale)

    return wrapper


def asks_for_gradients(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs) * (2 if torch.is_grad_enabled() else 1)

    return wrapper


def remembers(forward: Forward) -> Forward:
    calls = 0

    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(self, *args, **kwargs) * (2 if calls % 2 else 1)

    return wrapper


def model_of(decorator: Callable[[Forward], Forward]) -> Model:
    class Decorated(Model):
        @decorator
        def forward(self, x: Tensor, scale: float = 1.0, **others: Any) -> Any:
            return self.bn(self.conv(x)) * scale + len(others)

    return trained(Decorated(**layers()))


def called(model: Any, x: Tensor) -> list[Tensor | None]:
    """What every kind of call gives; None where it is refused: a graph holds for one value of ``scale``."""

    def attempt(*args: Any, **kwargs: Any) -> Tensor | None:
        try:
            result: Tensor = model(*args, **kwargs)
        except (ValueError, TypeError):
            return None
        return result.detach()

    with torch.no_grad():
        without = attempt(x)
    return [without, attempt(x), attempt(x=x), attempt(x, scale=1.0), attempt(x, 1.0), attempt(x, scale=3.0)]


@pytest.mark.parametrize(
    "decorator",
    [hands_on, hands_all_on, sets_a_default, looks_for_a_name, counts, has_another_default, asks_for_gradients],
)
def test_every_call_gives_what_it_gave(decorator: Callable[[Forward], Forward]) -> None:
    model, x = model_of(decorator), values(2, 3, 6, 6)
    fused = fx_fuse(model)
    before, after = called(model, x), called(fused, x)
    pairs = [(one, other) for one, other in zip(before, after, strict=True) if other is not None]
    assert len(pairs) >= len(before) // 2
    for expected, given in pairs:
        assert_equal(expected, given)


def test_a_decorator_with_a_memory_stays() -> None:
    model, x = model_of(remembers), values(2, 3, 6, 6)
    fused = fx_fuse(model)
    with torch.no_grad():
        assert_equal([model(x), model(x)], [fused(x), fused(x)])


@pytest.mark.parametrize("decorator", [hands_on, hands_all_on])
def test_what_only_hands_on_is_traced(decorator: Callable[[Forward], Forward]) -> None:
    assert isinstance(fx_fuse(model_of(decorator)), fx.GraphModule)
