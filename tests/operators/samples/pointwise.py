"""Calls of ``+``, ``-``, ``*`` and ``/`` with a constant."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.operators.calls import Function, Method
from tests.operators.sample import called
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten
# Overloads take tensors where the value and the constant stand, numbers included.
OVERLOADS: list[Any] = [aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.rsub.Tensor, aten.div.Tensor]
FUNCTIONS: dict[str, list[Any]] = {
    "mul": [operator.mul, torch.mul, torch.multiply],
    "add": [operator.add, torch.add],
    "sub": [operator.sub, torch.sub, torch.subtract],
    "rsub": [torch.rsub],
    "div": [operator.truediv, torch.div, torch.divide, torch.true_divide],
}
IN_PLACE: dict[str, list[Any]] = {
    "mul_": [operator.imul, aten.mul_.Tensor],
    "add_": [operator.iadd, aten.add_.Tensor],
    "sub_": [operator.isub, aten.sub_.Tensor],
    "div_": [operator.itruediv, aten.div_.Tensor],
}
X = (2, 3, 4, 4)


def constants() -> Iterator[Any]:
    """What the other operand can be."""
    yield parameter(3, 1, 1)
    yield parameter(1, 3, 1, 1, seed=1)
    yield randn(3, 1, 1)
    yield torch.tensor([2, -3, 5]).reshape(3, 1, 1)
    yield randn(1)[0]
    yield 3
    yield -0.25


def calls() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """A module that makes one call, the target of the call, and an input."""
    for name, functions in FUNCTIONS.items():
        for function in functions:
            yield from _calls(name, function)
        for constant in constants() if name != "rsub" else ():
            yield Method(name, constant), name, randn(*X)
        if name not in ("div", "rsub"):
            yield Method(name, parameter(3, 1, 1), flipped=True), name, randn(*X)
    for negate in (operator.neg, torch.neg, torch.negative):
        yield Function(negate), negate, randn(*X)
    yield Method("neg"), "neg", randn(*X)
    yield Method("negative"), "negative", randn(*X)
    yield from _spelled()
    for name in ("add", "sub"):
        yield Method(name, parameter(3, 1, 1), alpha=3), name, randn(*X)
        yield Method(name, parameter(3, 1, 1), flipped=True, alpha=0.5), name, randn(*X)
    yield from _in_place()
    yield from _overloads()


def _spelled() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """The other names."""
    for method in ("multiply", "subtract", "divide", "true_divide"):
        yield Method(method, parameter(3, 1, 1)), method, randn(*X)
    for function in (torch.div, torch.divide, aten.div.Tensor_mode, aten.divide.Tensor_mode):
        yield Function(function, parameter(3, 1, 1), rounding_mode=None), function, randn(*X)


def _in_place() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for name, functions in IN_PLACE.items():
        calls: list[Function | Method] = [Method(name, constant) for constant in constants()]
        calls += [Function(function, parameter(3, 1, 1)) for function in functions]
        calls += [Function(function, randn(1)[0]) for function in functions]
        calls += [Function(functions[0], constant) for constant in constants()]
        if name in ("add_", "sub_"):
            calls += [Method(name, parameter(3, 1, 1), alpha=3), Function(functions[1], randn(3, 1, 1), alpha=-2)]
        for call in calls:
            yield call, called(call), randn(*X)


def _overloads() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for overload in OVERLOADS:
        yield Function(overload, parameter(3, 1, 1)), overload, randn(*X)
        yield Function(overload, randn(1)[0]), overload, randn(*X)
        if overload is not aten.div.Tensor:
            yield Function(overload, parameter(3, 1, 1), flipped=True), overload, randn(*X)
        if overload not in (aten.div.Tensor, aten.mul.Tensor):
            yield Function(overload, parameter(3, 1, 1), alpha=-2), overload, randn(*X)
    for overload in (aten.multiply.Tensor, aten.true_divide.Tensor, aten.divide.Tensor):
        yield Function(overload, parameter(3, 1, 1)), overload, randn(*X)
    yield Function(aten.subtract.Tensor, parameter(3, 1, 1), alpha=2), aten.subtract.Tensor, randn(*X)
    yield Function(aten.negative.default), aten.negative.default, randn(*X)
    yield Function(aten.rsub.Scalar, 5), aten.rsub.Scalar, randn(*X)
    yield Function(aten.rsub.Scalar, 2, 3), aten.rsub.Scalar, randn(*X)
    yield Function(aten.neg.default), aten.neg.default, randn(*X)


def _calls(name: str, function: Any) -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for constant in constants():
        yield Function(function, constant), function, randn(*X)
    from_torch = function.__module__ != "_operator"
    if name != "div":
        yield Function(function, parameter(3, 1, 1), flipped=True), function, randn(*X)
    if name != "div" and not from_torch:
        yield Function(function, 2, flipped=True), function, randn(*X)
    if from_torch:
        yield Function(function, other=parameter(3, 1, 1), by_keyword="input"), function, randn(*X)
    if from_torch and name in ("add", "sub", "rsub") and function is not torch.subtract:
        yield Function(function, parameter(3, 1, 1), alpha=-2), function, randn(*X)
        yield Function(function, parameter(3, 1, 1), alpha=2.5, flipped=True), function, randn(*X)
        yield Function(function, other=2, alpha=3, by_keyword="input"), function, randn(*X)
