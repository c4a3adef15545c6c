"""A value that is unpacked into names has as many parts as there are names, if it is the value that is unpacked."""

from __future__ import annotations

import itertools
from itertools import starmap
from typing import TYPE_CHECKING, Any

import pytest
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Unpacks(Model):
    task: Callable[..., Any]

    def forward(self, x: Tensor) -> Any:
        return self.task(self.one(self.conv(x)), self.other(self.conv(x + 1)))


def unpacks(task: Callable[..., Any]) -> Unpacks:
    model = Unpacks(conv=nn.Conv2d(3, 12, 1), one=nn.BatchNorm2d(12), other=nn.BatchNorm2d(12))
    model.task = task
    return trained(model)


def halves(y: Tensor) -> Any:
    return y.chunk(2, 1)


def direct(y: Tensor, z: Tensor) -> Any:
    a, b = y.chunk(2, 1)
    return a, b, z


def named(y: Tensor, z: Tensor) -> Any:
    parts = y.chunk(2, 1)
    a, b = parts
    return a, b, z


def nested(y: Tensor, z: Tensor) -> Any:
    (a, b), [c, d] = halves(y), z.split(6, 1)
    return a, b, c, d


def beside(y: Tensor, z: Tensor) -> Any:
    names = dict(zip("yz", map(halves, (y, z)), strict=True))
    a, b = names["y"]
    return a, b, names["z"][1]


@pytest.mark.parametrize("task", [direct, named, nested, beside])
def test_a_value_that_is_unpacked(task: Callable[..., Any]) -> None:
    model = unpacks(task)
    fused = fx_fuse(model)
    assert sorted(folds(fused)) == ["one", "other"]
    assert_same(model, fused, values(2, 3, 4, 4))


def thirds(y: Tensor, z: Tensor) -> Any:
    return y.chunk(3, 1), z.chunk(3, 1)


def sums(y: Tensor, z: Tensor) -> Any:
    a, b = map(sum, thirds(y, z))
    return a, b


def kept(y: Tensor, z: Tensor) -> Any:
    summed = map(sum, thirds(y, z))
    a, b = summed
    return a, b


def numbered(y: Tensor, z: Tensor) -> Any:
    a, b = map(dict, map(enumerate, thirds(y, z)))
    return a, b


def single(y: Tensor, z: Tensor) -> Any:
    (a,) = map(sum, thirds(y, z)[:1])
    return a, z


def chosen(y: Tensor, z: Tensor) -> Any:
    a, b = itertools.chain(map(sum, thirds(y, z)))
    return a, b


def starred(y: Tensor, z: Tensor) -> Any:
    a, b = starmap(sum, zip(thirds(y, z), strict=True))
    return a, b


@pytest.mark.parametrize("task", [sums, kept, numbered, single, chosen, starred])
def test_an_iterator_that_looks_into_values_while_it_is_unpacked(task: Callable[..., Any]) -> None:
    model = unpacks(task)
    assert_same(model, fx_fuse(model), values(2, 3, 4, 4))
