"""Calls of average pools, and means along some axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import Function, Method, Single
from tests.operators.sample import IMAGE, LINE, VOLUME, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
SCALES = along(1, keeps=0)
LAST = along(-1)
INPUTS: dict[int, Tensor] = {1: randn(*LINE), 2: randn(*IMAGE), 3: randn(*VOLUME)}


def calls() -> Iterator[Sample]:
    for dims, x in INPUTS.items():
        yield from _averages(dims, x)
        yield from _adaptive(dims, x)
    yield from _means(INPUTS[2])


def _averages(dims: int, x: Tensor) -> Iterator[Sample]:
    module: Any = getattr(nn, f"AvgPool{dims}d")
    function, overload = getattr(F, f"avg_pool{dims}d"), getattr(aten, f"avg_pool{dims}d").default
    twos, ones, sizes = [2] * dims, [1] * dims, [3, 2, 3][:dims]
    yield carrier(Single(module(2)), x)
    yield carrier(Single(module(tuple(sizes), stride=2, padding=1, ceil_mode=True, count_include_pad=False)), x)
    yield carrier(Single(module(3, 2, 1)), x, SCALES, SCALES)
    yield carrier(Single(module(2, ceil_mode=True)), x[0], along(0), along(0))  # without a batch axis
    yield carrier(Function(function, 2), x)
    yield carrier(Function(function, 3, 2, 1, True), x, SCALES, SCALES)
    yield carrier(Function(function, 3, padding=0, count_include_pad=True, ceil_mode=True), x)
    yield carrier(Function(function, sizes, tuple(twos), tuple(ones), True, False), x)
    yield carrier(Function(function, kernel_size=3, stride=2, by_keyword="input"), x, along(0, 1), along(0, 1))
    yield carrier(Function(overload, sizes), x)
    yield carrier(Function(overload, sizes, twos, ones), x, SCALES, SCALES)
    yield carrier(Function(overload, sizes, twos, ones, True, False), x)
    if dims > 1:
        yield carrier(Function(function, 3, 2, 1, False, False, None), x)
        yield carrier(Function(overload, sizes, twos, ones, False, False, None), x)


def _adaptive(dims: int, x: Tensor) -> Iterator[Sample]:
    average = getattr(nn, f"AdaptiveAvgPool{dims}d")
    sizes, partly = [3, 2, 4][:dims], (3, None, 2)[:dims]
    overload = getattr(aten, f"adaptive_avg_pool{dims}d").default
    overloads = [overload] if dims == 1 else [overload, getattr(aten, f"_adaptive_avg_pool{dims}d").default]
    yield carrier(Single(average(1)), x)
    yield carrier(Single(average(9)), x)  # larger than the input
    yield carrier(Single(average(partly)), x)
    averages = getattr(F, f"adaptive_avg_pool{dims}d")
    yield carrier(Function(averages, output_size=2), x)
    yield carrier(Function(averages, sizes), x, along(0, 1), along(0, 1))
    yield carrier(Function(averages, tuple(sizes)), x)
    for average in overloads:
        yield carrier(Function(average, sizes), x)


def _means(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("mean", (2, 3)), x)
    yield carrier(Method("mean", 1), x, along(0, 2), along(0, 3))
    yield carrier(Method("mean", -2, keepdim=True), x, along(1, 3), along(1, 3))
    yield carrier(Method("mean", dim=[-1, -2], keepdim=True), x)
    for mean in (torch.mean, aten.mean.dim):
        yield carrier(Function(mean, [1, 2]), x, LAST, LAST)
        yield carrier(Function(mean, [0, -1]), x, along(0))
        yield carrier(Function(mean, [-1], True), x)
