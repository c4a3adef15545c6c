"""Calls of resizes, maximum pools, pads and rolls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import FirstItem, Function, Method, Single
from tests.operators.sample import IMAGE, LINE, VOLUME, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
LINEAR = {1: ["upsample_linear1d"], 2: ["upsample_bilinear2d", "upsample_bicubic2d"], 3: ["upsample_trilinear3d"]}
SMOOTH = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
SCALES = along(1, keeps=0)
TURNS_NOTHING = along(1, positive=True)
INPUTS: dict[int, Tensor] = {1: randn(*LINE), 2: randn(*IMAGE), 3: randn(*VOLUME)}


def calls() -> Iterator[Sample]:
    for dims, x in INPUTS.items():
        yield from _maxima(dims, x)
        yield from _adaptive_maxima(dims, x)
        yield from _padding_modules(dims, x)
    yield from _pads()
    yield from _rolls()
    yield from _resizes()


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


def _adaptive_maxima(dims: int, x: Tensor) -> Iterator[Sample]:
    maximum, sizes, partly = getattr(nn, f"AdaptiveMaxPool{dims}d"), [3, 2, 4][:dims], (3, None, 2)[:dims]
    yield carrier(Single(maximum(2)), x, TURNS_NOTHING, TURNS_NOTHING)
    yield carrier(Single(maximum(partly)), x, TURNS_NOTHING, TURNS_NOTHING)
    maxima = getattr(F, f"adaptive_max_pool{dims}d")
    yield carrier(Function(maxima, 2), x, TURNS_NOTHING, TURNS_NOTHING)
    yield carrier(Function(maxima, sizes, return_indices=False), x, TURNS_NOTHING, TURNS_NOTHING)
    if dims > 1:
        indexed = getattr(aten, f"adaptive_max_pool{dims}d").default
        yield carrier(FirstItem(indexed, sizes), x, TURNS_NOTHING, TURNS_NOTHING)


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


def _resizes() -> Iterator[Sample]:
    line, image, volume = randn(*LINE), randn(*IMAGE), randn(*VOLUME)
    yield carrier(Single(nn.Upsample(scale_factor=2, mode="bilinear")), image)
    yield carrier(Single(nn.Upsample(size=(3, 5), mode="bicubic", align_corners=True)), image)
    yield carrier(Single(nn.Upsample((4, 9, 2))), volume)
    yield carrier(Single(nn.UpsamplingNearest2d((3, 5))), image, target=nn.Upsample)
    yield carrier(Single(nn.UpsamplingBilinear2d(scale_factor=2)), image, target=nn.Upsample)
    for function in (F.interpolate, F.upsample):
        yield carrier(Function(function, 9), line)
        yield carrier(Function(function, None, 1.5, "linear", True), line)
        yield carrier(Function(function, scale_factor=2), image)
        yield carrier(Function(function, size=(4, 3), mode="area", by_keyword="input"), image, along(0, 1), along(0, 1))
        yield carrier(Function(function, (3, 9, 2), mode="trilinear"), volume)
        yield carrier(Function(function, (3, 5), None, "bilinear", False), image)
    options: list[dict[str, Any]] = [
        {"size": 9, "mode": "area"},
        {"scale_factor": 0.5, "mode": "nearest-exact"},
        {"scale_factor": (1.5, 2.0), "mode": "bicubic", "recompute_scale_factor": True},
        {"size": (3, 2), "mode": "bilinear", "antialias": True},
        {"size": (3, 2), "mode": "bicubic", "antialias": True, "align_corners": True},
        {"scale_factor": (0.7, 1.3), "mode": "bilinear", "align_corners": True},
    ]
    for option in options:
        yield carrier(Function(F.interpolate, **option), image)
    yield from _overloads()


def _overloads() -> Iterator[Sample]:
    for dims, shape in ((1, LINE), (2, IMAGE), (3, VOLUME)):
        x, sizes, factors = randn(*shape), [9, 3, 7][:dims], [1.5, 0.75, 1.2][:dims]
        for name in NEAREST:
            packet = getattr(aten, f"{name}{dims}d")
            yield carrier(Function(packet.vec, None, factors), x)
            yield carrier(Function(packet.vec, sizes, None), x)
            yield carrier(Function(packet.default, sizes), x)
            yield carrier(Function(packet.default, sizes, *factors), x)
        for name in LINEAR[dims] + [name for name in SMOOTH if dims == 2]:
            packet = getattr(aten, name)
            yield carrier(Function(packet.vec, None, False, factors), x)
            yield carrier(Function(packet.vec, sizes, True, None), x)
            yield carrier(Function(packet.default, sizes, True), x)
            yield carrier(Function(packet.default, sizes, False, *[None] * dims), x)
