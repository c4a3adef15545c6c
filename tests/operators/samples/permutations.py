"""Calls that put axes in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.operators.calls import Function, Method
from tests.operators.sample import IMAGE, PER_CHANNEL, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator


aten = torch.ops.aten
LAST = along(-1)


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield carrier(Method("permute", 0, 2, 3, 1), x, LAST)
    yield carrier(Method("permute", (2, 0, 1, 3)), x, along(0, 3), along(2, 3))
    yield carrier(Method("permute", dims=(0, -1, 1, -2)), x, PER_CHANNEL, LAST)
    yield carrier(Function(torch.permute, (3, 1, 0, 2)), x)
    yield carrier(Function(torch.permute, dims=[0, 3, 2, 1], by_keyword="input"), x, LAST)
    yield carrier(Function(aten.permute.default, [0, 2, 3, 1]), x, LAST)
    yield carrier(Method("transpose", -1, -2), x)
    yield carrier(Method("transpose", dim0=3, dim1=0), x, along(0, 1), along(1, 3))
    yield carrier(Method("transpose", 1, 3), x, LAST)
    yield carrier(Method("swapaxes", -1, -3), x, LAST)
    yield carrier(Method("swapaxes", 2, -1), x, along(2, 3), along(2, 3))
    for transpose in (torch.transpose, torch.swapaxes, aten.transpose.int, aten.swapaxes.default):
        yield carrier(Function(transpose, -1, -3), x, PER_CHANNEL, LAST)
        yield carrier(Function(transpose, 1, 2), x, along(2))
    for name, move in (("movedim", torch.movedim), ("moveaxis", torch.moveaxis)):
        yield carrier(Method(name, 1, -1), x, LAST)
        yield carrier(Method(name, (3, 0), (1, -1)), x, along(1, 2), along(2, 3))
        yield carrier(Method(name, source=-1, destination=1), x, PER_CHANNEL, LAST)
        yield carrier(Function(move, (0, 1), (2, 0)), x, along(0))
        yield carrier(Function(move, 1, 2), x, along(2))
    for one, several in ((aten.movedim.int, aten.movedim.intlist), (aten.moveaxis.int, aten.moveaxis.intlist)):
        yield carrier(Function(one, 1, -2), x, along(2))
        yield carrier(Function(several, [0, 1], [-1, 1]), x)
