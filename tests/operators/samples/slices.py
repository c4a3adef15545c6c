"""Calls that take one part out of a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.operators.calls import Function, Method
from tests.operators.sample import IMAGE, PER_CHANNEL, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
ANY, LAST = along(), along(-1)
END = (1 << 63) - 1  # how ATen writes "to the end"


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _slices(x)
    yield from _selected(x)


def _slices(x: Tensor) -> Iterator[Sample]:
    yield carrier(Function(aten.slice.Tensor, -3, 2, 6), x)
    yield carrier(Function(aten.slice.Tensor, 2, 1, 5), x, PER_CHANNEL, along(1, 2))
    yield carrier(Function(aten.slice.Tensor, -1, -3, END), x, along(1, 3), along(1, 3))
    yield carrier(Function(aten.slice.Tensor), x, None, along(1, 2))  # the whole
    yield carrier(Function(aten.slice.Tensor, 1, -100, 100), x)
    yield carrier(Function(aten.slice.Tensor, 1, None, 3, 1), x)
    yield carrier(Function(aten.slice.Tensor, dim=-3, end=-2), x)
    yield carrier(Method("narrow", -3, 2, 4), x)
    yield carrier(Method("narrow", 1, 0, 3), x)
    yield carrier(Method("narrow", dim=-3, start=5, length=3), x)
    for narrow in (torch.narrow, aten.narrow.default):
        yield carrier(Function(narrow, -3, 5, 3), x)
        yield carrier(Function(narrow, 2, 1, 4), x, along(1, 2), along(1, 2))
        yield carrier(Function(narrow, 1, 1, 6), x)
        yield carrier(Function(narrow, -3, 7, 1), x, ANY)


def _selected(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("select", -3, 3), x, ANY)
    yield carrier(Method("select", 1, -1), x, along(0, 1), along(0, 1, 2))
    yield carrier(Method("select", dim=-3, index=0), x, ANY)
    for select in (torch.select, aten.select.int):
        yield carrier(Function(select, -3, -8), x, ANY)
        yield carrier(Function(select, 3, -2), x, along(1, 2), along(1, 3))
        yield carrier(Function(select, 1, 4), x, ANY)
        yield carrier(Function(select, -3, -1), x, ANY)
