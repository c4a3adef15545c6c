"""A hook on a block, or on the model, may come to the layers inside; if it does not, they fold."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import assert_right, sequence
from tests.helpers import Model, Structure, assert_equal, folds, reasons, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = [values(2, 3, 6, 6), values(6, 3, 6, 6), -values(2, 3, 6, 6).abs()]


class Switched(Model):
    """Whether its norm is used is for others to say."""

    use_norm = True

    def forward(self, x: Tensor) -> Any:
        y = self.block[0](x)
        return self.block[1](y) if self.use_norm else y


class Scaled(Model):
    scale = 1.0

    def forward(self, x: Tensor) -> Any:
        return self.block(x) * self.scale


class Whole(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(x)


# -- hooks that come to a layer inside


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
    Watcher,
    around,
    lambda model: functools.partial(layer_bound, model.block[0]),
]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("make", LOOKING)
def test_what_a_hook_may_come_to_stays(make: Callable[[Any], Any], inner: bool, structure: Structure) -> None:
    model = Whole(block=sequence())
    model.register_forward_hook(make(model))
    whole = trained(nn.Sequential(model, nn.ReLU()) if inner else model)
    fused = fx_fuse(whole, structure=structure if inner else None)
    left = "0.block.1" if inner else "block.1"
    assert reasons(fused) == {(left, Reason.HOOKED)}
    with torch.no_grad():  # hooks that know the model call the layers of the original one, which are as they were
        for x in INPUTS:
            assert_equal(whole(x), fused(x))


def switches(module: Any, args: Any) -> None:
    module.use_norm = bool(args[0].sum() > 0)


def scales(module: Any, args: Any) -> None:
    module.scale = float(args[0].mean())


@pytest.mark.parametrize(("cls", "hook"), [(Switched, switches), (Scaled, scales)])
def test_a_hook_that_sets_what_the_forward_reads(cls: type[Model], hook: Any) -> None:
    model = trained(cls(block=sequence()))
    model.register_forward_pre_hook(hook)
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert folds(fused) == []


# -- hooks that look at values, or at settings of the module alone


def settings(module: Any, _args: Any, output: Any) -> Any:
    module.last = output
    noted[module] = f"{type(module).__name__} {module.training} {module}"
    return output * (2 if isinstance(module, nn.Module) else 3)


noted: dict[Any, str] = {}
adapter = trained(nn.Conv2d(3, 3, 1))


def adapts(_module: Any, args: Any, output: Any) -> Any:
    return output + adapter(args[0])


@torch.no_grad()
def doubles(*args: Any) -> Any:
    return args[2] * 2


def noting(name: str, found: dict[str, Any]) -> Any:
    def note(_module: Any, _args: Any, output: Any) -> None:
        found[name] = output

    return note


BLIND: list[Callable[[Any], Any]] = [
    lambda _: settings,
    lambda _: adapts,
    lambda _: doubles,
    lambda _: noting("block", {}),
    lambda _: lambda _module, _args, output: output * 2,
    lambda model: Watcher(model).note,
    lambda _: functools.partial(lambda factor, _module, _args, output: output * factor, 3.0),
]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("make", BLIND)
def test_a_hook_that_sees_values_alone_forbids_nothing(
    make: Callable[[Any], Any], inner: bool, structure: Structure
) -> None:
    model = Whole(block=sequence())
    model.register_forward_hook(make(model))
    whole = trained(nn.Sequential(model, nn.ReLU()) if inner else model)
    fused = fx_fuse(whole, structure=structure)
    assert_right(whole, fused, INPUTS)
    assert folds(fused) == ["0.block.1" if inner else "block.1"]


def test_a_graph_with_a_hook_that_looks_inside() -> None:
    traced = torch.fx.symbolic_trace(trained(Whole(block=sequence())))
    traced.register_forward_hook(lambda module, args, output: output + module.get_submodule("block.0")(args[0]))
    fused = fx_fuse(traced)
    assert reasons(fused) == {("block.1", Reason.HOOKED)}
    assert_right(traced, fused, INPUTS)
