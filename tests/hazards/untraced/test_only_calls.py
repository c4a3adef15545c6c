"""Hazard 35: functions that are given a block, and call it, or do something else with it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as cp
from torch.utils.checkpoint import checkpoint

from tests.hazards.blocks import assert_decided, assert_stays, batch_of, block
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable


def run(layer: Any, x: Any, *rest: Any) -> Any:
    return layer(x, *rest)


def runs_by_another(layer: Any, x: Any, times: int = 1) -> Any:
    for _ in range(times):
        x = run(layer, x) if times > 1 else checkpoint(layer, x, use_reentrant=False)
    return x


def again(layer: Any, x: Any, times: int) -> Any:
    return layer(x) if times < 2 else again(layer, x, times - 1)


def taps(layer: Any, x: Any) -> Any:
    return layer.conv(x)


def taps_by_another(layer: Any, x: Any) -> Any:
    return layer(x) + taps(layer, x)


def taps_by_another_name(layer: Any, x: Any) -> Any:
    y = layer
    return y.conv(x)


def taps_inside(layer: Any, x: Any) -> Any:
    def inner() -> Any:
        return layer.conv(x)

    return inner()


def taps_its_variables(layer: Any, x: Any) -> Any:
    return locals()["layer"].conv(x)


def taps_a_default(layer: Any = None, **more: Any) -> Any:  # noqa: ARG001 - who gives something by another name
    return more["inner"].conv(more["x"])


def taps_the_rest(*rest: Any) -> Any:
    return rest[0].conv(rest[1])


def swapped(x: Any, layer: Any) -> Any:
    return layer(x) + taps(x=x, layer=layer)


def gives(layer: Any, x: Any) -> Any:  # noqa: ARG001 - the second
    return layer


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(layer: Any, x: Any) -> Any:
        return function(layer, x)

    return wrapper


@decorated
def wrapped(layer: Any, x: Any) -> Any:
    return layer.conv(x)


class Others:
    """What is no module of Python's, with a name of torch's function."""

    checkpoint = staticmethod(taps)


class Calls(Model):
    """A model with blocks ``one`` and ``two``, and a list ``layers`` of a third."""

    def forward(self, x: Tensor) -> Any:
        return self.tap(self.one(x) * batch_of(x))

    def tap(self, x: Tensor) -> Any:
        raise NotImplementedError

    def run(self, layer: Any, x: Any) -> Any:
        return checkpoint(layer, x, use_reentrant=False) if x.requires_grad else layer(x)

    def run_later(self, layer: Any, x: Any) -> Any:
        return self.run(layer, x)

    def take(self, layer: Any, x: Any) -> Any:
        return layer.conv(x)

    def chosen(self, layer: Any, x: Any) -> Any:
        return layer(x)

    def replaced(self, layer: Any, x: Any) -> Any:
        return layer(x)

    @staticmethod
    def static(layer: Any, x: Any) -> Any:
        return layer.conv(x)

    @property
    def found(self) -> Any:
        return taps


def in_a_loop(self: Any, x: Any) -> Any:
    for layer in self.layers:
        x = checkpoint(layer, x, use_reentrant=False) if x.requires_grad else layer(x)
    return self.two(x)


def at_times(self: Any, x: Any) -> Any:
    if self.training and x.requires_grad:
        return checkpoint(self.two, x, use_reentrant=False)
    return self.two(x)


def by_a_variable(self: Any, x: Any) -> Any:
    layer = self.two
    return run(layer, x) + layer(x)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "torch's own": lambda self, x: checkpoint(self.two, x, use_reentrant=False),
    "torch's own, by its path": lambda self, x: torch.utils.checkpoint.checkpoint(self.two, x, use_reentrant=False),
    "torch's own, of its module": lambda self, x: cp.checkpoint(self.two, x, use_reentrant=False),
    "torch's own, at times": at_times,
    "each element": in_a_loop,
    "each element, in a comprehension": lambda self, x: sum(run(layer, x) for layer in self.layers) + self.two(x),
    "an element": lambda self, x: run(self.layers[0], x) + self.two(x),
    "a function": lambda self, x: run(self.two, x),
    "a function that gives it to another": lambda self, x: runs_by_another(self.two, x) + again(self.two, x, 3),
    "a variable": by_a_variable,
    "a method": lambda self, x: self.run(self.two, x) + self.run_later(self.two, x),
}


def model_of(tap: Any) -> Any:
    model = type("Tapping", (Calls,), {"tap": tap, "__module__": __name__})(one=block(), two=block())
    model.layers = nn.ModuleList([block()])
    return trained(model)


@pytest.mark.parametrize("tap", CALLS.values(), ids=CALLS)
def test_who_only_calls_a_block_leaves_it_closed(tap: Any) -> None:
    model = model_of(tap)
    if "layers" not in tap.__code__.co_names:
        del model.layers
    third = ["layers.0.bn"] if hasattr(model, "layers") else []
    assert_decided(model, folded=[*third, "one.bn", "two.bn"])


def loop_that_taps(self: Any, x: Any) -> Any:
    for layer in self.layers:
        x = taps(layer, x)
    return x + taps(self.two, x)


def sets_its_method(self: Any, x: Any) -> Any:
    self.replaced = taps
    return self.replaced(self.two, x)


TAPS: dict[str, Callable[[Any, Any], Any]] = {
    "a layer": lambda self, x: taps(self.two, x),
    "through a function": lambda self, x: taps_by_another(self.two, x),
    "under another name": lambda self, x: taps_by_another_name(self.two, x),
    "in a function inside": lambda self, x: taps_inside(self.two, x),
    "by its variables": lambda self, x: taps_its_variables(self.two, x),
    "an argument by a keyword": lambda self, x: taps_a_default(inner=self.two, x=x),
    "one of any number": lambda self, x: taps_the_rest(self.two, x),
    "by other keywords": lambda self, x: swapped(layer=self.two, x=x),
    "what is given back": lambda self, x: gives(self.two, x).conv(x),
    "in what a decorator wraps": lambda self, x: wrapped(self.two, x),
    "by torch's own, another argument": lambda self, x: checkpoint(taps, self.two, x, use_reentrant=False),
    "by torch's own, by keywords": lambda self, x: checkpoint(
        layer=self.two, function=taps_by_name, x=x, use_reentrant=False
    ),
    "by what has the name of torch's own": lambda self, x: Others.checkpoint(self.two, x),
    "each element": loop_that_taps,
    "by a method": lambda self, x: self.take(self.two, x),
    "by a method of the instance": lambda self, x: self.chosen(self.two, x),
    "by a method that is set": sets_its_method,
    "by a static method": lambda self, x: self.static(self.two, x),
    "by a property": lambda self, x: self.found(self.two, x),
    "by a partial": lambda self, x: functools.partial(run, self.two)(x) + functools.partial(taps, self.two)(x),
    "a list of them": lambda self, x: taps_the_rest(*[self.two, x]),
    "by a default": lambda self, x: (lambda y, layer=self.two: layer.conv(y))(x),  # noqa: PLC3002 - this is the point
}


def taps_by_name(*, layer: Any, x: Any) -> Any:
    return layer.conv(x)


@pytest.mark.parametrize("tap", TAPS.values(), ids=TAPS)
def test_who_does_more_than_call_it_opens_a_block(tap: Any) -> None:
    model = model_of(tap)
    model.chosen = taps
    assert_stays(model, ["two.bn"])


class Replaced(Calls):
    def tap(self, x: Tensor) -> Any:
        return self.run(self.two, x)

    def run(self, layer: Any, x: Any) -> Any:
        return layer.conv(x)


class Above(Calls):
    def tap(self, x: Tensor) -> Any:
        return self.run(self.two, x)


class Below(Above):
    def run(self, layer: Any, x: Any) -> Any:
        return layer.conv(x)


@pytest.mark.parametrize("cls", [Replaced, Below])
def test_a_class_may_replace_a_method_by_one_that_opens(cls: type[Model]) -> None:
    assert_stays(trained(cls(one=block(), two=block())), ["two.bn"])
