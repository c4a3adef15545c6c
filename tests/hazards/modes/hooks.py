"""Hooks that come to a layer inside of the module that they are registered on, in ways that people write."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def calls_a_layer(module: Any, args: Any, output: Any) -> Any:
    return output + module.block[0](args[0])


def calls_a_child(module: Any, args: Any, output: Any) -> Any:
    return output + next(module.children())[0](args[0])


def calls_by_a_name(module: Any, args: Any, output: Any) -> Any:
    return output + getattr(module, "block")[0](args[0])  # noqa: B009 - this is the point


def hands_it_on(module: Any, args: Any, output: Any) -> Any:
    return calls_a_layer(module, args, output)


def takes_anything(*anything: Any) -> Any:
    return calls_a_layer(*anything)


def keeps_all_arguments(*args: Any) -> Any:
    return args[2] + args[0].block[0](args[1][0])


@functools.wraps(calls_a_layer)
def with_something_around(*args: Any) -> Any:
    return calls_a_layer(*args)


def renames(module: Any, args: Any, output: Any) -> Any:
    same = module
    return output + same.block[0](args[0])


def reads_a_weight(module: Any, _args: Any, output: Any) -> Any:
    return output * module.block[0].weight.mean()


class Watcher:
    """Holds the model, and what was seen."""

    def __init__(self, model: Any = None) -> None:
        self.model, self.seen = model, list[Tensor]()

    def look(self, _module: Any, args: Any, output: Any) -> Any:
        return output + self.model.block[0](args[0])

    def note(self, _module: Any, _args: Any, output: Any) -> None:
        self.seen.append(output)

    __call__ = look


class Steps:
    """Its method comes to the model by another one, or by a property."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def act(self, _module: Any, args: Any, output: Any) -> Any:
        return output + self.step(args[0])

    def step(self, x: Any) -> Any:
        return self.inner.block[0](x)

    @property
    def inner(self) -> Any:
        return self.model

    def by_itself(self, x: Any) -> Any:
        return self.step(x)


def through(find: Callable[[], Any]) -> Any:
    def inner() -> Any:
        return find()

    return lambda _module, args, output: output + inner().block[0](args[0])


@functools.lru_cache
def remembered(model: Any) -> Any:
    return lambda: model


def optimized(model: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return output * optimizer.param_groups[0]["params"][0].mean()

    return hook


def weighted(model: Any) -> Any:
    weights = [weight for _, weight in model.named_parameters()]
    return lambda _module, _args, output: output * weights[0].mean()


def strange(model: Any) -> Any:
    """An object that raises whatever is asked of it, and a model."""

    class Strange:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __call__(self, _module: Any, args: Any, output: Any) -> Any:
            return output + model.block[0](args[0])

    return Strange()


def around(model: Any) -> Any:
    return lambda _, args, output: output + model.block[0](args[0])


def layer_bound(layer: Any, _module: Any, args: Any, output: Any) -> Any:
    return output + layer(args[0])


LOOKING: list[Callable[[Any], Any]] = [
    *(lambda _, hook=hook: hook for hook in (calls_a_layer, calls_a_child, calls_by_a_name, hands_it_on, renames)),
    *(lambda _, hook=hook: hook for hook in (takes_anything, reads_a_weight, keeps_all_arguments)),
    lambda _: with_something_around,
    lambda _: torch.no_grad()(calls_a_layer),
    lambda _: functools.partial(lambda *args: calls_a_layer(*args[1:]), 1),
    lambda _: lambda module, args, output: output + module.block[0](args[0]),
    lambda _: eval("lambda module, args, output: output + module.block[0](args[0])"),  # noqa: S307 - has no source
    lambda model: Watcher(model).look,
    lambda model: Steps(model).act,
    lambda model: lambda _, args, output: output + Steps(model).by_itself(args[0]),
    lambda model: functools.partial(lambda steps, _, args, output: output + steps.step(args[0]), Steps(model)),
    lambda model: through(weakref.ref(model)),
    lambda model: through(lambda: weakref.proxy(model)),
    lambda model: through(remembered(model)),
    *(optimized, weighted, strange),
    Watcher,
    around,
    lambda model: functools.partial(layer_bound, model.block[0]),
]
