"""Calls that add or subtract two values, or add up all that is stacked."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from tests.operators.calls import Pair, Stacked
from tests.operators.sample import IMAGE, PER_CHANNEL, Along, Sample, along
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten
OPERATORS: list[Any] = [operator.add, operator.iadd, operator.sub, operator.isub]
FUNCTIONS: list[Any] = [torch.add, torch.sub, torch.subtract, torch.rsub]
METHODS = ("add", "sub", "add_", "sub_")
OVERLOADS: list[Any] = [aten.add.Tensor, aten.sub.Tensor, aten.subtract.Tensor, aten.rsub.Tensor]
IN_PLACE: list[Any] = [aten.add_.Tensor, aten.sub_.Tensor]


def calls() -> Iterator[Sample]:
    yield from _pairs()
    yield from _broadcast()
    yield from _stacks()


def summed(model: Pair | Stacked, pull: Along = PER_CHANNEL, *shapes: tuple[int, ...]) -> Sample:
    """A sample of a sum of values, the first of ordinary shape, the others of the same or other shapes."""
    y, z = (randn(*shape, seed=seed) for seed, shape in enumerate(shapes or (IMAGE, IMAGE), start=1))
    push = along() if shapes else pull
    return Sample(model.eval(), model.function, randn(*IMAGE), "Sum", (y, z), pull, push)


def _pairs() -> Iterator[Sample]:
    for function in (*OPERATORS, *FUNCTIONS, *METHODS, *OVERLOADS, *IN_PLACE):
        yield summed(Pair(function))
        yield summed(Pair(function), along(1, 2))
    for function in (*FUNCTIONS, *METHODS, *OVERLOADS, *IN_PLACE):
        yield summed(Pair(function, alpha=3))
        yield summed(Pair(function, alpha=-0.5))
    for function in FUNCTIONS:
        named = {"alpha": 2} if function is not torch.subtract else {}
        yield summed(Pair(function, by_keyword=True, **named))


def _broadcast() -> Iterator[Sample]:
    """The second value has one size along some axes, or has not as many axes."""
    for function in (operator.add, operator.iadd, torch.sub, torch.rsub, aten.sub_.Tensor):
        yield summed(Pair(function), PER_CHANNEL, (2, 8, 1, 1), IMAGE)
        yield summed(Pair(function), PER_CHANNEL, (8, 6, 4), IMAGE)


def _stacks() -> Iterator[Sample]:
    for function in (torch.sum, "sum"):
        yield summed(Stacked(function, 2, 0))
        yield summed(Stacked(function, 3, -1), along(1, 2))
        yield summed(Stacked(function, 3, 2, dim=2))
        yield summed(Stacked(function, 2, 1, dim=(1,), keepdim=False))
    yield summed(Stacked(aten.sum.dim_IntList, 3, 1, [1]))
    yield summed(Stacked(aten.sum.dim_IntList, 2, -2, [-2]), along(1, 3))
    yield summed(Stacked(aten.sum.dim_IntList, 3, 0, [0]))
