"""Calls that add, drop or repeat axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.operators.calls import Function, Method
from tests.operators.sample import IMAGE, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _new_axes(x)
    yield from _copies_along_axes(x)


def _new_axes(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("unsqueeze", -1), x)
    yield carrier(Method("unsqueeze", 1), x, along(0, 2), along(0, 1))
    yield carrier(Method("unsqueeze", dim=2), x)
    yield carrier(Method("unsqueeze", dim=-3), x)
    for unsqueeze in (torch.unsqueeze, aten.unsqueeze.default):
        yield carrier(Function(unsqueeze, -5), x, along(2))
        yield carrier(Function(unsqueeze, 0), x, along(2))
        yield carrier(Function(unsqueeze, -4), x, along(2))
    thin = randn(2, 8, 1, 4)
    yield carrier(Method("squeeze", -2), thin)
    yield carrier(Method("squeeze", dim=2), thin, along(0, 2), along(0, 3))
    yield carrier(Method("squeeze", 2), thin)
    yield carrier(Function(torch.squeeze, (2,)), thin)
    yield carrier(Function(torch.squeeze, dim=-2, by_keyword="input"), thin)
    yield carrier(Function(torch.squeeze, 0), randn(1, 8, 6, 4), along(0))
    yield carrier(Function(aten.squeeze.dim, 2), thin)
    yield carrier(Function(aten.squeeze.dims, [-2]), thin)


def _copies_along_axes(x: Tensor) -> Iterator[Sample]:
    thin = randn(2, 8, 1, 4)
    yield carrier(Method("expand", -1, -1, 6, -1), thin)
    yield carrier(Method("expand", (5, 2, 8, 6, 4)), thin, along(1, 2, 4), along(0, 1, 3))
    yield carrier(Method("expand", 2, 8, 6, 4), thin)
    yield carrier(Function(aten.expand.default, [3, -1, -1, 6, -1], implicit=False), thin, along(2))
    yield carrier(Function(aten.expand.default, [-1, -1, 6, -1]), thin)
    yield carrier(Method("repeat", 1, 1, 2, 3), x)
    yield carrier(Method("repeat", 1, 3, 1, 2), x, along(2), along(1, 2))
    yield carrier(Method("repeat", 1, 3, 1, 2), x, None, along(1, 2, 3))
    yield carrier(Method("repeat", (3, 1, 1, 2, 2)), x, along(2))
    yield carrier(Function(aten.repeat.default, [5, 1, 2, 1]), x)
    yield carrier(Function(aten.repeat.default, [7, 1, 1, 1, 2]), x, along(2))
