"""Hazard 35: layers that an untraced forward calls one after another fold where a run shows it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import assert_recorded, assert_stays, batch_of, layers
from tests.support.helpers import Model, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNS = (values(2, 3, 6, 6), -values(2, 3, 6, 6), values(1, 3, 5, 8), values(6, 3, 6, 6))

# -- always one after the other


class BranchesOnData(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x.relu() if x.sum() > 0 else x * 2


class InOneBranch(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = self.conv(x)
            x = self.bn(y)
        return x + 1


class IfThere(Model):
    """As many libraries write it: the norm is an option."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x * batch_of(x)


class Loops(Model):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().sum() > 100:
            x = self.bn(self.conv(x / 2)) / 9
        return x


class Handed(Model):
    """A function reads what a layer notes of itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = padded(x, self.conv)
        return self.bn(self.conv(x))


def padded(x: Tensor, layer: Any) -> Tensor:
    missing = int(x.shape[-1]) % layer.stride[0] + layer.dilation[0] - 1
    return nn.functional.pad(x, (0, missing))


def tuples(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as libraries have it: it looks at settings of the model and of the call."""

    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        as_tuple = kwargs.pop("as_tuple", getattr(self, "as_tuple", False))
        result = forward(self, *args, **kwargs)
        return (result,) if as_tuple else result

    return wrapper


class Decorated(Model):
    @tuples
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * batch_of(x)


@pytest.mark.parametrize("cls", [BranchesOnData, InOneBranch, IfThere, Loops, Handed, Decorated])
def test_what_a_run_shows_folds(cls: type[Model]) -> None:
    model = trained(cls(**layers()))
    fused = assert_recorded(model, "bn", example=SIGNS[0].abs(), inputs=SIGNS, branches=False)
    assert isinstance(fused, cls)
    assert_stays(model, ["bn"], inputs=SIGNS)


class Chain(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x = self.other(self.drop(x))
        return x if x.sum() > 0 else -x


def test_a_chain_of_several_layers() -> None:
    model = trained(Chain(**layers(), drop=nn.Dropout(), other=nn.BatchNorm2d(3)))
    fused = assert_recorded(model, "bn", example=SIGNS[0], inputs=SIGNS, branches=False)
    assert folds(fused) == ["bn", "other"]  # the dropout in between checks what it gets
    assert_stays(model, ["bn", "other"], inputs=SIGNS)


# -- not always


class KeptInBetween(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.seen = [y]
        y = self.bn(y)
        return y + self.seen[0] if batch_of(x) > 4 else y


class ReadLater(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)

        def late() -> Tensor:
            return y * 2

        z = late() if batch_of(x) > 4 else x
        y = self.bn(y)
        return y + z


class IfSwitched(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if not self.skips:
            x = self.bn(x)
        self.skips: Any = batch_of(x) > 4
        return x


class HeldTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return self.blocks[0](x)
        return self.bn(self.conv(x))


class HeldInAList(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return self.held[0](x)
        return self.bn(self.conv(x))


class HeldByAFunction(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return self.call(x)
        return self.bn(self.conv(x))


class CalledByAHelper(Model):
    def forward(self, x: Tensor) -> Tensor:
        if batch_of(x) > 4:
            return applied(self.conv, x)
        return self.bn(self.conv(x))


def applied(layer: nn.Module, x: Tensor) -> Any:
    return layer(x)


def looks_inside(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(self: Any, x: Tensor) -> Any:
        return self.conv(x) if batch_of(x) > 4 else forward(self, x)

    return wrapper


class DecoratedOtherwise(Model):
    @looks_inside
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * batch_of(x)


def any_arguments(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(*args: Any) -> Any:
        return args[0].conv(args[1]) if batch_of(args[1]) > 4 else forward(*args)

    return wrapper


class DecoratedByPosition(Model):
    @any_arguments
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * batch_of(x)


@pytest.mark.parametrize(
    "cls",
    [
        *(KeptInBetween, ReadLater, IfSwitched, HeldTwice, HeldInAList, HeldByAFunction, CalledByAHelper),
        *(DecoratedOtherwise, DecoratedByPosition),
    ],
)
def test_whatever_may_see_the_first_layer_alone_forbids_it(cls: type[Model]) -> None:
    model: Any = trained(cls(**layers()))
    model.skips = False
    model.blocks, model.held = nn.ModuleList([model.conv]), [model.conv]
    model.call = lambda x, conv=model.conv: conv(x)
    assert_stays(model, ["bn"], because={Reason.OPAQUE, Reason.REACHED_INTO, Reason.SHARED})


class Parent(Model):
    """Calls another method of a child that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x) + self.child.only(x)


class Child(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * batch_of(x)

    def only(self, x: Tensor) -> Tensor:
        return self.conv(x) * batch_of(x)


def test_another_method_that_is_called_forbids_it() -> None:
    assert_stays(trained(Parent(child=Child(**layers()))), ["child.bn"], because={Reason.OPAQUE, Reason.REACHED_INTO})


def test_a_forward_that_was_replaced_is_not_what_runs() -> None:
    model = trained(BranchesOnData(**layers()))
    model.forward = model.conv  # type: ignore[method-assign] # as tools do that wrap a model
    assert not folds(fx_fuse(model))
