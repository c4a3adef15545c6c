"""Calls of ``mm``, ``addmm`` and ``matmul`` with a constant matrix: linear layers."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tests.operators.calls import Einsum, Function, Method, Swapped
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

aten = torch.ops.aten
IN = 4


def calls() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """``x @ weight`` with the weight as ``(in, out)``, and as ``(out, in)`` with its axes swapped in every way."""
    x, bias = randn(3, IN), parameter(6, seed=1)
    for mm, addmm in ((torch.mm, torch.addmm), (aten.mm.default, aten.addmm.default)):
        yield Function(mm, parameter(IN, 6)), mm, x
        yield Function(addmm, bias, parameter(IN, 6), behind=1), addmm, x
        yield Function(addmm, bias, parameter(IN, 6), behind=1, beta=1, alpha=1), addmm, x
    for product in (torch.matmul, operator.matmul, aten.matmul.default):
        for more in (x, randn(2, 3, IN), randn(IN)):
            yield Function(product, parameter(IN, 6)), product, more
    yield Method("matmul", parameter(IN, 6)), "matmul", randn(2, 3, IN)
    yield from _einsums()
    yield from _tensordots()
    swaps: list[Callable[[Tensor], Tensor]] = [
        torch.t,
        lambda weight: weight.t(),
        lambda weight: weight.permute(1, 0),
        lambda weight: weight.transpose(0, 1),
        lambda weight: torch.permute(weight, (1, 0)),
        lambda weight: torch.transpose(weight, -1, -2),
        aten.t.default,
        lambda weight: aten.permute.default(weight, [1, 0]),
        lambda weight: aten.transpose.int(weight, 0, 1),
    ]
    for swap in swaps:
        yield Swapped(swap, parameter(6, IN)), torch.mm, x
        yield Swapped(swap, parameter(6, IN), bias), torch.addmm, x


def _einsums() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for einsum in (torch.einsum, aten.einsum.default):
        for equation, x, weight in (
            ("bc,cd->bd", randn(3, IN), parameter(IN, 6)),
            ("b t c, d c -> b t d", randn(2, 3, IN), parameter(6, IN)),
            ("...i,io->...o", randn(2, 3, 5, IN), parameter(IN, 6)),
        ):
            yield Einsum(einsum, equation, weight), einsum, x
            yield Einsum(einsum, _turned(equation), weight, flipped=True), einsum, x
    yield Function(torch.einsum, "bc,cd->bd", parameter(IN, 6), behind=1), torch.einsum, randn(3, IN)


def _turned(equation: str) -> str:
    operands, result = equation.split("->")
    one, two = operands.split(",")
    return f"{two},{one}->{result}"


def _tensordots() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for x in (randn(3, IN), randn(2, 3, IN)):
        yield Function(torch.tensordot, parameter(IN, 6), 1), torch.tensordot, x
        yield Function(torch.tensordot, parameter(IN, 6), dims=([-1], [0])), torch.tensordot, x
        yield Function(torch.tensordot, parameter(6, IN), ([x.ndim - 1], [1])), torch.tensordot, x
        yield Function(aten.tensordot.default, parameter(6, IN), [-1], [-1]), aten.tensordot.default, x
