"""Calls that give a value other numbers of axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from tests.operators.calls import Function, Method, Single
from tests.operators.sample import IMAGE, PER_CHANNEL, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
LAST = along(-1)
ALIKE = along(1, alike=24)
"""Affines of flattened images, the same for all elements of a channel."""


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _flattened(x)
    yield from _reshaped(x)
    yield from _unflattened(x)


def _flattened(x: Tensor) -> Iterator[Sample]:
    yield carrier(Single(nn.Flatten(2)), x)
    yield carrier(Single(nn.Flatten()), x, PER_CHANNEL, along(1, 2, 3))
    yield carrier(Single(nn.Flatten(0, -2)), x, LAST, LAST)
    yield carrier(Method("flatten", 1, 3), x, ALIKE)
    yield carrier(Method("flatten"), x, along(0), along(0, 1, 2, 3))
    yield carrier(Method("flatten", -2), x)
    yield carrier(Method("flatten", 1, -1), x, ALIKE)
    for flatten in (torch.flatten, aten.flatten.using_ints):
        yield carrier(Function(flatten, 0, 1), x, LAST, LAST)
        yield carrier(Function(flatten, 1, 2), x, along(1, 2), along(1, 2, 3))
        yield carrier(Function(flatten, start_dim=1, end_dim=3), x, ALIKE)
        yield carrier(Function(flatten, 2), x)


def _reshaped(x: Tensor) -> Iterator[Sample]:
    for name in ("view", "reshape"):
        yield carrier(Method(name, 2, 8, -1), x)
        yield carrier(Method(name, (2, 2, 4, 24)), x, along(1, 2))
        yield carrier(Method(name, 2, 8, 4, 6), x, along(2), along(2, 3))
        yield carrier(Method(name, 2, 4, 2, 4, 6), x, along(1, 2, 3, 4), along(1, 2, 3))
        yield carrier(Method(name, 96, -1), x, LAST, LAST)
    for reshape in (torch.reshape, aten.view.default, aten.reshape.default, aten._unsafe_view.default):
        yield carrier(Function(reshape, [2, 8, 24]), x)
        yield carrier(Function(reshape, [2, -1]), x, PER_CHANNEL, along(1, 2, 3))
        yield carrier(Function(reshape, [2, 192]), x, ALIKE)
    for name in ("view_as", "reshape_as"):
        overload = getattr(aten, name).default
        yield carrier(Method(name, randn(2, 192)), x, PER_CHANNEL, along(1, 2, 3))
        yield carrier(Method(name, randn(2, 8, 24)), x)
        yield carrier(Function(overload, randn(2, 8, 24)), x)


def _unflattened(x: Tensor) -> Iterator[Sample]:
    yield carrier(Single(nn.Unflatten(1, (2, 4))), x, along(1, 2))
    yield carrier(Single(nn.Unflatten(-2, (3, 2))), x)
    yield carrier(Method("unflatten", -3, (4, -1)), x, along(1, 2))
    yield carrier(Method("unflatten", dim=2, sizes=(2, 3)), x, along(1, 2), along(1, 2))
    for unflatten in (torch.unflatten, aten.unflatten.int):
        yield carrier(Function(unflatten, 1, [2, 2, 2]), x, along(1, 2, 3))
        yield carrier(Function(unflatten, -1, [2, -1]), x)
