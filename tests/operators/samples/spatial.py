"""Calls of interpolate, in all of its modes, and of the overloads that torch.export writes for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import Function, Single
from tests.operators.sample import IMAGE, LINE, VOLUME, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
LINEAR = {1: ["upsample_linear1d"], 2: ["upsample_bilinear2d", "upsample_bicubic2d"], 3: ["upsample_trilinear3d"]}
SMOOTH = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")


def calls() -> Iterator[Sample]:
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
