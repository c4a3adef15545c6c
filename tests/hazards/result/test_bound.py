"""What an attribute is bound to: a result calls its own modules, or its report says that it does not."""

from __future__ import annotations

import functools
import weakref
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Reason, Report, fx_fuse, refold
from tests.hazards.blocks import EXAMPLES, batch_of, example
from tests.support.helpers import Model, Structure, assert_same, folds, reasons, run, trained, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Callable

X = values(2, 3, 6, 6)
Named = namedtuple("Named", "norm")  # noqa: PYI024 - the older form, which has no class of its own


class Net(Model):
    """A forward that calls what is in an attribute."""

    def both(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return self.norm(self.conv(x)) * factor


class ByAttribute(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.held, x)


class ByUntraced(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.held, x) if batch_of(x) < 5 else x


def around(model: Any) -> Any:
    norm = model.norm
    return lambda x: norm(model.conv(x))


def default(model: Any) -> Any:
    def call(x: Tensor, norm: nn.Module = model.norm, *, conv: nn.Module = model.conv) -> Tensor:
        return norm(conv(x))

    return call


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def called(held: Any, x: Tensor) -> Any:
    return held(x)


def first(held: Any, x: Tensor) -> Any:
    return held[0](x)


# What holds the modules of the model, and how its forward calls that.
EXCHANGED: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Tensor], Any]]] = {
    "method": (lambda m: m.both, called),
    "partial": (lambda m: functools.partial(m.both, factor=2.0), called),
    "partial of a partial": (lambda m: functools.partial(functools.partial(m.both), factor=2.0), called),
    "partial with a module": (lambda m: functools.partial(Net.both, m), called),
    "function around the model": (lambda m: lambda x: m.norm(m.conv(x)), called),
    "function around layers": (around, called),
    "defaults": (default, called),
    "no_grad": (lambda m: torch.no_grad()(m.both), called),
    "wrapper": (lambda m: decorated(decorated(m.both)), called),
    "list": (lambda m: [functools.partial(m.both, factor=2.0)], first),
    "dict": (lambda m: {0: torch.no_grad()(m.both)}, first),
    "set": (lambda m: {m.norm}, lambda held, x: next(iter(held))(x.repeat(1, 2, 1, 1)[:, :4])),
    "named tuple": (lambda m: Named(m.both), first),
    "weak reference": (weakref.ref, lambda held, x: held().both(x)),
    "weak proxy": (lambda m: [weakref.proxy(m)], lambda held, x: held[0].both(x)),
    "compiled": (lambda m: torch.compile(m.both, backend="eager"), called),
}


class Holder:
    """An object that nobody knows how to copy."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Any:
        return self.module.both(x)


class Slots:
    __slots__ = ("module",)

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Any:
        return self.module.both(x)


class OwnList(list[Any]):
    pass


HELD: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Tensor], Any]]] = {
    "object": (Holder, called),
    "object with slots": (Slots, called),
    "method of an object": (lambda m: Holder(m).__call__, called),
    "function around an object": (lambda m: functools.partial(lambda holder, x: holder(x), Holder(m)), called),
    "list of a class of its own": (lambda m: OwnList([m.both]), first),
    "cache": (lambda m: functools.lru_cache(m.both), called),
}


def made(case: tuple[Callable[[Any], Any], Callable[[Any, Tensor], Any]], cls: type[Net]) -> Any:
    model = trained(cls(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    model.__dict__.update(held=case[0](model), call=case[1])
    return model


def emptied(model: nn.Module) -> nn.Module:
    """The model with zeros for all its tensors, which it shares with no other any more."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.zeros_like(tensor)
    return model


@pytest.mark.parametrize("cls", [ByAttribute, ByUntraced])
@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("name", EXCHANGED)
def test_what_is_bound_to_a_module_is_bound_to_its_copy(name: str, shape: tuple[int, ...] | None, cls: Any) -> None:
    model, other = made(EXCHANGED[name], cls), made(EXCHANGED[name], cls)
    with unchanged(model):
        fused = fx_fuse(model, example(shape), structure="module")
    assert_same(model, fused, X)
    assert "norm" in folds(fused) or cls is ByUntraced or name == "set"
    refold(fused, other)
    assert_same(other, fused, X)
    before = run(model, (X,))
    assert not run(emptied(fused), (X,)).any()
    assert torch.equal(run(model, (X,)), before)
    fused.train()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", EXCHANGED)
def test_what_is_bound_folds_on_a_run(name: str) -> None:
    fused = fx_fuse(made(EXCHANGED[name], ByUntraced), X)
    assert ("norm" in folds(fused)) is (name != "set")
    assert len({decision.path for decision in Report.of(fused).decisions}) == len(Report.of(fused).decisions)


@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("cls", [ByAttribute, ByUntraced])
@pytest.mark.parametrize("name", HELD)
def test_modules_in_an_object_stay(name: str, cls: Any, shape: tuple[int, ...] | None) -> None:
    model = made(HELD[name], cls)
    fused = fx_fuse(model, example(shape), structure="module")
    assert_same(model, fused, X, rtol=0)
    traced = cls is ByAttribute and name != "cache"  # which takes no proxies
    expected = Reason.OWN_FORWARD if traced else Reason.OPAQUE if shape is None else Reason.BOUND
    assert reasons(fused) == {("norm", expected)}
    assert not folds(fused)
    assert any("attribute held" in note for note in Report.of(fused).notes)
    with pytest.raises(FuseError, match="used by an object of the original"):
        refold(fused, made(HELD[name], cls))


def test_an_object_with_modules_keeps_no_fold_out_of_a_graph() -> None:
    model, other = made(HELD["object"], ByAttribute), made(HELD["object"], ByAttribute)
    fused = fx_fuse(model)
    assert folds(fused) == ["mul", "norm"]
    assert_same(other, refold(fused, other), X)


class Configured:
    """What models hold besides modules."""

    def __init__(self) -> None:
        self.sizes, self.function = [1, 2], torch.relu


def test_an_object_without_modules_is_shared() -> None:
    model = made((lambda _: Configured(), called), ByUntraced)
    model.call = lambda held, x: held.function(model.norm(model.conv(x)))
    fused: Any = fx_fuse(model, X)
    assert fused.held is model.held
    assert folds(fused) == ["norm"]


# -- a norm that is called as a function


class InDict(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.functions["norm"](self.conv(x))


def test_a_norm_of_which_the_forward_is_held_is_told_once(structure: Structure) -> None:
    model = trained(InDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    model.__dict__["functions"] = {"norm": model.norm.forward}
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, X)
    assert [decision.path for decision in Report.of(fused).decisions] == ["batch_norm"]


def test_a_function_that_is_compiled_and_knows_no_module_stays_compiled() -> None:
    model = made((lambda _: torch.compile(torch.nn.functional.gelu, backend="eager"), called), ByAttribute)
    fused: Any = fx_fuse(model, structure="module")
    assert fused.held is model.held
    assert not Report.of(fused).notes


# -- classes that convert their tensors by themselves


class Converts(Model):
    def __init__(self, **layers: Any) -> None:
        super().__init__(**layers)
        self.__dict__["stride"] = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu() + self.__dict__["stride"]

    def _apply(self, fn: Any) -> Any:  # type: ignore[override] # as ultralytics writes it
        super()._apply(fn)  # type: ignore[no-untyped-call] # of torch's
        self.__dict__["stride"] = fn(self.__dict__["stride"])
        return self


@pytest.mark.parametrize("convert", [lambda m: m.float(), lambda m: m.to(torch.float32), lambda m: m.to("cpu").float()])
def test_a_class_may_convert_by_a_function_alone(convert: Any) -> None:
    model = trained(Converts(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    with unchanged(model):
        fused = convert(fx_fuse(model, structure="module"))
    assert folds(fused) == ["norm"]
    assert fused.stride.dtype == fused.conv.weight.dtype == torch.float32
    assert_same(model.float(), fused, X.float(), rtol=1e-5)
