"""Hazard 15: a hook on a block, or on the model, may come to the layers inside; they fold where it is said to look."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import assert_right, sequence
from tests.hazards.modes.hooks import LOOKING, Watcher, strange
from tests.support.helpers import Model, Structure, assert_equal, folds, reasons, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

torch.manual_seed(0)  # whatever other files of tests have drawn
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


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("make", LOOKING)
def test_what_a_hook_may_come_to_stays(make: Callable[[Any], Any], inner: bool, structure: Structure) -> None:
    model = Whole(block=sequence())
    model.register_forward_hook(make(model))
    whole = trained(nn.Sequential(model, nn.ReLU()) if inner else model)
    fused = fx_fuse(whole, structure=structure if inner and make is not strange else None)
    left = "0.block.1" if inner else "block.1"
    assert reasons(fused) == {(left, Reason.HOOKED)}
    with torch.no_grad():  # hooks that know the model call the layers of the original one, which are as they were
        for x in INPUTS:
            assert_equal(whole(x), fused(x))


def switches(module: Any, args: Any) -> None:
    module.use_norm = bool(args[0].sum() > 0)


def scales(module: Any, args: Any) -> None:
    module.scale = float(args[0].mean())


@pytest.mark.parametrize(("cls", "hook", "folded"), [(Switched, switches, []), (Scaled, scales, ["block.1"])])
def test_a_hook_that_sets_what_the_forward_reads(cls: type[Model], hook: Any, folded: list[str]) -> None:
    model = trained(cls(block=sequence()))
    model.register_forward_pre_hook(hook)
    assert_only_observed(model, folded, left=["block.1"])


def assert_only_observed(model: nn.Module, folded: list[str], left: list[str], **options: Any) -> None:
    """What hooks may come to stays; it folds if it is said that they only look.  The result is right both times."""
    fused = fx_fuse(model, **options)
    assert_right(model, fused, INPUTS)
    assert reasons(fused) == {(path, Reason.HOOKED) for path in left}
    fused = fx_fuse(model, hooks="observe", **options)
    assert_right(model, fused, INPUTS)
    assert folds(fused) == folded


# -- hooks that look at values, or at settings of the module alone


def settings(module: Any, _args: Any, output: Any) -> Any:
    module.last = output
    noted[module] = f"{type(module).__name__} {module.training} {module}"
    return output * (2 if isinstance(module, nn.Module) else 3)


noted: dict[Any, str] = {}
adapter = trained(nn.Conv2d(3, 3, 1))


def times(module: Any, _args: Any, output: Any) -> Any:
    module.start = time.perf_counter()
    module.taken = time.perf_counter() - module.start
    noted.setdefault(module, "")
    noted.pop(module)
    return output * 2 if hasattr(module, "block") else output


def attach(log: bool = False) -> Any:
    if log:
        logger = logging.getLogger()

    def hook(module: Any, _args: Any, output: Any) -> Any:
        if log:
            logger.debug("%s", module)
        return output * 2

    return hook


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
    lambda _: times,
    lambda _: attach(),
    lambda _: noting("block", {}),
    lambda _: lambda _module, _args, output: output * 2,
    lambda model: Watcher(model).note,
    lambda _: functools.partial(lambda factor, _module, _args, output: output * factor, 3.0),
]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("make", BLIND)
def test_a_hook_that_sees_values_alone_forbids_nothing_where_it_is_said(
    make: Callable[[Any], Any], inner: bool, structure: Structure
) -> None:
    model = Whole(block=sequence())
    model.register_forward_hook(make(model))
    whole = trained(nn.Sequential(model, nn.ReLU()) if inner else model)
    path = "0.block.1" if inner else "block.1"
    assert_only_observed(whole, [path], left=[path], structure=structure)


def test_a_graph_with_a_hook_that_looks_inside() -> None:
    traced = torch.fx.symbolic_trace(trained(Whole(block=sequence())))
    traced.register_forward_hook(lambda module, args, output: output + module.get_submodule("block.0")(args[0]))
    fused = fx_fuse(traced)
    assert reasons(fused) == {("block.1", Reason.HOOKED)}
    assert_right(traced, fused, INPUTS)


def test_the_hooks_with_which_an_exported_program_checks_its_inputs_keep_nothing() -> None:
    model = trained(Whole(block=sequence()))
    exported = torch.export.export(model, (INPUTS[0],)).module()
    assert exported._forward_pre_hooks
    fused: Any = fx_fuse(exported)
    assert len(folds(fused)) == 1
    with torch.no_grad():
        assert_equal(exported(INPUTS[0]), fused(INPUTS[0]))
    with pytest.raises(AssertionError, match="Guard failed"):  # they run as before
        fused(values(3, 3, 6, 6))


def test_a_hook_of_the_users_beside_those_of_an_exported_program() -> None:
    exported = torch.export.export(trained(Whole(block=sequence())), (INPUTS[0],)).module()
    exported.register_forward_hook(lambda module, _, output: output + module.get_parameter("block.0.weight").sum())
    fused: Any = fx_fuse(exported)
    assert not folds(fused)
    with torch.no_grad():
        assert_equal(exported(INPUTS[0]), fused(INPUTS[0]))
