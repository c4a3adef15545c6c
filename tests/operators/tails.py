"""Calls of norms by the statistics of the value itself, of which only the weight and bias are an affine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import FirstItem, Function, Single
from tests.operators.sample import BATCH, IMAGE, LINE, VOLUME, Sample, called
from tests.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
WEIGHT, BIAS = {"weight": parameter(8, seed=2)}, {"bias": parameter(8, seed=3)}


def calls() -> Iterator[Sample]:
    for call, x in (*_modules(), *_layer_norms(), *_rms_norms(), *_group_norms(), *_instance_norms()):
        yield Sample(call, called(call), x, "Tail")


def _modules() -> Iterator[tuple[nn.Module, Tensor]]:
    batch, line, image, volume = (randn(*shape) for shape in (BATCH, LINE, IMAGE, VOLUME))
    norms: list[tuple[nn.Module, Tensor]] = [
        (nn.LayerNorm(8), batch),
        (nn.LayerNorm(4, bias=False), image),
        (nn.LayerNorm((6, 4), eps=0.1), image),
        (nn.LayerNorm(6), line),
        (nn.RMSNorm(8), batch),
        (nn.RMSNorm((6, 4)), image),
        (nn.RMSNorm(6, eps=0.1), line),
        (nn.GroupNorm(2, 8), image),
        (nn.GroupNorm(4, 8), batch),
        (nn.GroupNorm(8, 8, eps=0.1), volume),
        (nn.GroupNorm(1, 8), line),
        *((nn.InstanceNorm1d(8, affine=True), line), (nn.InstanceNorm1d(8, eps=0.1, affine=True), line[0])),
        *((nn.InstanceNorm2d(8, affine=True), image), (nn.InstanceNorm2d(8, affine=True), image[0])),
        *((nn.InstanceNorm3d(8, affine=True), volume), (nn.InstanceNorm3d(8, affine=True), volume[0])),
    ]
    for norm, x in norms:
        yield Single(_scaled(norm)).eval(), x


def _scaled(norm: nn.Module) -> nn.Module:
    """The norm with a weight and bias far from one and zero."""
    for seed, (name, value) in enumerate(list(norm.named_parameters())):
        norm.register_parameter(name, parameter(*value.shape, seed=seed))
    return norm


def _layer_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    x, shape, weight, bias = randn(*IMAGE), (6, 4), parameter(6, 4, seed=2), parameter(6, 4, seed=3)
    batch = randn(*BATCH)
    yield Function(F.layer_norm, (8,), **WEIGHT, **BIAS), batch
    yield Function(F.layer_norm, shape, weight, bias, 0.1), x
    yield Function(F.layer_norm, normalized_shape=shape, bias=bias, by_keyword="input"), x
    yield Function(F.layer_norm, (4,), parameter(4)), x
    for norm in (torch.layer_norm, aten.layer_norm.default):
        yield Function(norm, [8], *WEIGHT.values(), *BIAS.values()), batch
        yield Function(norm, shape, weight, bias, 0.1, False), x
        yield Function(norm, shape, weight), x
        yield Function(norm, shape, bias=bias), x
    for native in (torch.native_layer_norm, aten.native_layer_norm.default):
        yield FirstItem(native, [8], *WEIGHT.values(), *BIAS.values(), 1e-5), batch
        yield FirstItem(native, shape, weight, bias, 0.1), x
        yield FirstItem(native, shape, weight, None, 1e-5), x
        yield FirstItem(native, shape, None, bias, 1e-5), x


def _rms_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    x, weight = randn(*IMAGE), parameter(6, 4, seed=2)
    for norm in (F.rms_norm, torch.rms_norm, aten.rms_norm.default):
        yield Function(norm, [8], *WEIGHT.values()), randn(*BATCH)
        yield Function(norm, (6, 4), weight=weight), x
        yield Function(norm, [6, 4], weight, 0.1), x


def _group_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    weight, bias = WEIGHT["weight"], BIAS["bias"]
    for norm in (F.group_norm, torch.group_norm, aten.group_norm.default):
        yield Function(norm, 2, weight, bias), randn(*IMAGE)
        yield Function(norm, 4, weight, bias, 0.1), randn(*BATCH)
        yield Function(norm, 4, bias=bias), randn(*LINE)
        yield Function(norm, num_groups=8, weight=weight, by_keyword="input"), randn(*VOLUME)
    for native in (torch.native_group_norm, aten.native_group_norm.default):
        yield FirstItem(native, weight, bias, 2, 8, 24, 4, 0.1), randn(*IMAGE)
        yield FirstItem(native, None, bias, 2, 8, 6, 2, 0.1), randn(*LINE)
        yield FirstItem(native, weight, None, 3, 8, 1, 2, 0.1), randn(*BATCH)


def _instance_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    weight, bias = WEIGHT["weight"], BIAS["bias"]
    rest: tuple[Any, ...] = (None, None, True, 0.1, 0.2, True)
    yield Function(F.instance_norm, **WEIGHT, **BIAS), randn(*IMAGE)
    yield Function(F.instance_norm, None, None, weight, None, True), randn(*LINE)
    yield Function(F.instance_norm, bias=bias, eps=0.1), randn(*VOLUME)
    for norm in (torch.instance_norm, aten.instance_norm.default):
        yield Function(norm, weight, bias, *rest), randn(*IMAGE)
        yield Function(norm, weight, None, *rest), randn(*LINE)
        yield Function(norm, None, bias, *rest), randn(*VOLUME)
