"""Calls of activations, pools, pads and resizes: operations along the last axes, and on each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import FirstItem, Function, Method, Single
from tests.operators.sample import IMAGE, LINE, VOLUME, Sample, along, carrier
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
SCALES = along(1, keeps=0)
TURNS_NOTHING = along(1, positive=True)
POSITIVE_SCALES = along(1, positive=True, keeps=0)
INPUTS: dict[int, Tensor] = {1: randn(*LINE), 2: randn(*IMAGE), 3: randn(*VOLUME)}


def calls() -> Iterator[Sample]:
    yield from _activations()
    for dims, x in INPUTS.items():
        yield from _averages(dims, x)
        yield from _adaptive(dims, x)
        yield from _maxima(dims, x)
        yield from _padding_modules(dims, x)
    yield from _pads()
    yield from _rolls()


def _activations() -> Iterator[Sample]:
    slopes = parameter(8, seed=3)
    for call in (
        *(Single(nn.ReLU()), Single(nn.ReLU(inplace=True))),
        *(Function(F.relu), Function(F.relu, by_keyword="input"), Function(F.relu, inplace=True)),
        *(Function(torch.relu), Function(torch.relu_), Method("relu"), Method("relu_")),
        *(Function(aten.relu.default), Function(aten.relu_.default)),
        *(Single(nn.LeakyReLU()), Single(nn.LeakyReLU(-1.5)), Single(nn.LeakyReLU(2.5, inplace=True))),
        *(Function(F.leaky_relu), Function(F.leaky_relu, 0.3), Function(F.leaky_relu, negative_slope=-0.5)),
        *(Function(F.leaky_relu, 0.3, inplace=True), Function(F.leaky_relu_, 0.3)),
        *(Function(aten.leaky_relu.default, -2), Function(aten.leaky_relu_.default)),
        *(Single(nn.PReLU().double()), Single(nn.PReLU(8, init=-0.5).double())),
        *(Function(F.prelu, slopes), Function(F.prelu, weight=parameter(1), by_keyword="input")),
        *(Method("prelu", slopes), Method("prelu", weight=slopes)),
        *(Function(aten.prelu.default, slopes), Function(aten._prelu_kernel.default, parameter(1, 8, 1, 1))),
    ):
        yield carrier(call, INPUTS[2], POSITIVE_SCALES, POSITIVE_SCALES)
    everywhere = along(0, -1, positive=True, keeps=0)
    yield carrier(Function(F.relu), INPUTS[2], everywhere, everywhere)
    yield carrier(Single(nn.PReLU(8).double()), randn(3, 8), POSITIVE_SCALES, POSITIVE_SCALES)


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
    average, maximum = getattr(nn, f"AdaptiveAvgPool{dims}d"), getattr(nn, f"AdaptiveMaxPool{dims}d")
    sizes, partly = [3, 2, 4][:dims], (3, None, 2)[:dims]
    overload = getattr(aten, f"adaptive_avg_pool{dims}d").default
    overloads = [overload] if dims == 1 else [overload, getattr(aten, f"_adaptive_avg_pool{dims}d").default]
    yield carrier(Single(average(1)), x)
    yield carrier(Single(average(9)), x)  # larger than the input
    yield carrier(Single(average(partly)), x)
    yield carrier(Single(maximum(2)), x, TURNS_NOTHING, TURNS_NOTHING)
    yield carrier(Single(maximum(partly)), x, TURNS_NOTHING, TURNS_NOTHING)
    averages = getattr(F, f"adaptive_avg_pool{dims}d")
    yield carrier(Function(averages, output_size=2), x)
    yield carrier(Function(averages, sizes), x, along(0, 1), along(0, 1))
    yield carrier(Function(averages, tuple(sizes)), x)
    maxima = getattr(F, f"adaptive_max_pool{dims}d")
    yield carrier(Function(maxima, 2), x, TURNS_NOTHING, TURNS_NOTHING)
    yield carrier(Function(maxima, sizes, return_indices=False), x, TURNS_NOTHING, TURNS_NOTHING)
    for average in overloads:
        yield carrier(Function(average, sizes), x)
    if dims > 1:
        indexed = getattr(aten, f"adaptive_max_pool{dims}d").default
        yield carrier(FirstItem(indexed, sizes), x, TURNS_NOTHING, TURNS_NOTHING)


def _maxima(dims: int, x: Tensor) -> Iterator[Sample]:
    module, function = getattr(nn, f"MaxPool{dims}d"), getattr(F, f"max_pool{dims}d")
    plain, overload = getattr(torch, f"max_pool{dims}d"), getattr(aten, f"max_pool{dims}d").default
    twos, ones, sizes = [2] * dims, [1] * dims, [3, 2, 3][:dims]
    pools: list[nn.Module] = [
        *(Single(module(2)), Single(module(3, 2, 1, ceil_mode=True)), Single(module(tuple(sizes), 1, dilation=2))),
        *(Function(function, 2), Function(function, 3, 2, 1, 1, True, False)),
        *(Function(function, kernel_size=sizes, padding=1, ceil_mode=True, by_keyword="input"),),
        *(Function(plain, sizes), Function(plain, 2, 2, 1, 1, True), Function(plain, sizes, padding=ones)),
        *(Function(overload, sizes), Function(overload, sizes, twos, ones, ones, True)),
    ]
    if dims > 1:
        indexed = getattr(aten, f"max_pool{dims}d_with_indices").default
        pools += [FirstItem(indexed, sizes), FirstItem(indexed, sizes, twos, ones, ones, True)]
    for pool in pools:
        yield carrier(pool, x, TURNS_NOTHING, TURNS_NOTHING)
    unbatched = along(0, positive=True)
    yield carrier(Function(function, 2), x[0], unbatched, unbatched)


def _padding_modules(dims: int, x: Tensor) -> Iterator[Sample]:
    uneven = (1, 0, 2, 1, 0, 1)[: 2 * dims]
    keeps_three = along(1, keeps=3)
    yield carrier(Single(getattr(nn, f"ZeroPad{dims}d")(1)), x, SCALES, SCALES)
    yield carrier(Single(getattr(nn, f"ZeroPad{dims}d")(uneven)), x, SCALES, SCALES)
    constant: Any = getattr(nn, f"ConstantPad{dims}d")
    yield carrier(Single(constant(uneven, 0.0)), x, SCALES, SCALES)
    yield carrier(Single(constant(1, 3)), x, keeps_three, keeps_three)
    yield carrier(Single(constant((-1, 1) * dims, 0)), x, SCALES, SCALES)
    for kind in ("Reflection", "Replication", "Circular"):
        module: Any = getattr(nn, f"{kind}Pad{dims}d")
        yield carrier(Single(module(1)), x)
        yield carrier(Single(module(uneven)), x, along(0, 1), along(0, 1))
        yield carrier(Single(module(uneven)), x)
    for kind in ("reflection", "replication"):
        yield carrier(Function(getattr(aten, f"{kind}_pad{dims}d").default, list(uneven)), x)


def _pads() -> Iterator[Sample]:
    x, keeps_three = INPUTS[2], along(1, keeps=3)
    for call in (Function(F.pad, (1, 2)), Function(F.pad, [0, 0, 1, 1], "constant"), Function(F.pad, (-1, 1), value=0)):
        yield carrier(call, x, SCALES, SCALES)
    yield carrier(Function(F.pad, (1, 0, 0, 2), "constant", 3.0), x, keeps_three, keeps_three)
    yield carrier(Function(F.pad, pad=(0, 0, 0, 0, 1, 2), by_keyword="input"), x, along(0, keeps=0), along(0, keeps=0))
    yield carrier(Function(F.pad, (1, 1), value=2), x, along(1, 2, keeps=2), along(1, 2, keeps=2))
    yield carrier(Function(F.pad, (0, 0, 0, 0)), x)  # nothing is padded
    yield carrier(Function(F.pad, (1, 0, 2, 1), mode="reflect"), x)
    yield carrier(Function(F.pad, (1, 0), "replicate"), randn(*LINE))
    yield carrier(Function(F.pad, (1, 0, 2, 1), "circular"), x)
    yield carrier(Function(aten.pad.default, [1, 2]), x, SCALES, SCALES)
    yield carrier(Function(aten.pad.default, [1, 2], "constant", 3.0), x, keeps_three, keeps_three)
    yield carrier(Function(aten.pad.default, [1, 2, 0, 1], "replicate"), x)
    for pad in (torch.constant_pad_nd, aten.constant_pad_nd.default):
        yield carrier(Function(pad, [0, 1], 3), x, keeps_three, keeps_three)
        yield carrier(Function(pad, [1, 2, -1, 0]), x, SCALES, SCALES)


def _rolls() -> Iterator[Sample]:
    x = INPUTS[2]
    for roll in (torch.roll, aten.roll.default):
        yield carrier(Function(roll, [1], [-2]), x)
        yield carrier(Function(roll, [1, -2], [-1, 2]), x)
        yield carrier(Function(roll, [5], [0]), x)
        yield carrier(Function(roll, shifts=[1, 2], dims=[-1, -2]), x)
    yield carrier(Method("roll", (1, 3), (-1, -4)), x)
    yield carrier(Method("roll", 1, 1), x, along(0, 2), along(0, 2))
    yield carrier(Function(torch.roll, 5, 0), x)
    yield carrier(Method("roll", shifts=-1, dims=-2), x)
