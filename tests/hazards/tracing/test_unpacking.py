"""Hazard 33: a value that is unpacked into names has as many parts as there are names."""

from __future__ import annotations

import itertools
from itertools import starmap
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, fx_fuse
from tests.support.helpers import Model, assert_same, folds, trained, values

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


def zipped(y: Tensor, z: Tensor) -> Any:
    return [part * n for part, n in zip(y.split([5, 7], 1), (2, 3), strict=True)] + [z]


def looped(y: Tensor, z: Tensor) -> Any:
    taps = [z]
    for number, part in enumerate(torch.split(y, [5, 4, 3], dim=1)):
        taps.append(part + number)
    return taps


def spread(y: Tensor, z: Tensor) -> Any:
    parts = torch.split(y, split_size_or_sections=[6, 6], dim=1)
    return torch.cat([*parts, z], 1), len(parts)


def listed(y: Tensor, z: Tensor) -> Any:
    return list(reversed(y.split_with_sizes([5, 7], 1))), z


@pytest.mark.parametrize("task", [zipped, looped, spread, listed])
def test_as_many_parts_as_sizes(task: Callable[..., Any]) -> None:
    model = unpacks(task)
    fused = fx_fuse(model, structure="graph")
    assert {"one", "other"} <= set(folds(fused))
    assert_same(model, fused, values(2, 3, 4, 4))


def of_one_size(y: Tensor, z: Tensor) -> Any:
    return [part + n for n, part in enumerate(y.split(5, 1))], z


def chunks(y: Tensor, z: Tensor) -> Any:
    return [part + n for n, part in enumerate(y.chunk(5, 1))], z


@pytest.mark.parametrize("task", [of_one_size, chunks])
def test_how_many_parts_of_one_size_there_are_depends_on_the_value(task: Callable[..., Any]) -> None:
    model = unpacks(task)
    assert_same(model, fx_fuse(model), values(2, 3, 4, 4))
    with pytest.raises(FuseError, match="cannot be traced as a whole"):
        fx_fuse(model, structure="graph")
