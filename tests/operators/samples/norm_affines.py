"""Calls of norms by the statistics of the value itself, of which only the weight and bias are an affine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import FirstItem, Function, Single
from tests.operators.sample import BATCH, IMAGE, LINE, VOLUME, Sample, along, called
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
WEIGHT: dict[str, Any] = {"weight": parameter(8, seed=2)}
BIAS: dict[str, Any] = {"bias": parameter(8, seed=3)}


def calls() -> Iterator[Sample]:
    for call, x in (*_layer_norms(), *_rms_norms()):
        trailing = next(call.parameters()).ndim
        yield Sample(call, called(call), x, "Tail", push=along(*range(-trailing, 0)))
    for call, x in (*_group_norms(), *_instance_norms()):
        yield Sample(call, called(call), x, "Tail")
    for norm, shape in ((nn.InstanceNorm1d, LINE), (nn.InstanceNorm2d, IMAGE), (nn.InstanceNorm3d, VOLUME)):
        yield Sample(_module(norm(8, affine=True)), norm, randn(*shape)[0], "Tail", push=along(0))


def _module(norm: nn.Module) -> nn.Module:
    """A call of a norm with a weight and bias far from one and zero."""
    for seed, (name, value) in enumerate(list(norm.named_parameters())):
        norm.register_parameter(name, parameter(*value.shape, seed=seed))
    return Single(norm).eval()


def _layer_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    x, shape, weight, bias = randn(*IMAGE), (6, 4), parameter(6, 4, seed=2), parameter(6, 4, seed=3)
    batch = randn(*BATCH)
    yield _module(nn.LayerNorm(8)), batch
    yield _module(nn.LayerNorm((6, 4), eps=0.1)), x
    yield _module(nn.LayerNorm(4, bias=False)), x
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
    yield _module(nn.RMSNorm(8)), randn(*BATCH)
    yield _module(nn.RMSNorm((6, 4))), x
    yield _module(nn.RMSNorm(6, eps=0.1)), randn(*LINE)
    for norm in (F.rms_norm, torch.rms_norm, aten.rms_norm.default):
        yield Function(norm, [8], *WEIGHT.values()), randn(*BATCH)
        yield Function(norm, (6, 4), weight=weight), x
        yield Function(norm, [6, 4], weight, 0.1), x


def _group_norms() -> Iterator[tuple[nn.Module, Tensor]]:
    weight, bias = WEIGHT["weight"], BIAS["bias"]
    yield _module(nn.GroupNorm(2, 8)), randn(*IMAGE)
    yield _module(nn.GroupNorm(8, 8, eps=0.1)), randn(*VOLUME)
    yield _module(nn.GroupNorm(1, 8)), randn(*LINE)
    yield _module(nn.GroupNorm(4, 8)), randn(*BATCH)
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
    for cls, shape in ((nn.InstanceNorm1d, LINE), (nn.InstanceNorm2d, IMAGE), (nn.InstanceNorm3d, VOLUME)):
        yield _module(cls(8, affine=True)), randn(*shape)
        yield _module(cls(8, eps=0.1, affine=True)), randn(*shape)
    rest: tuple[Any, ...] = (None, None, True, 0.1, 0.2, True)
    yield Function(F.instance_norm, **WEIGHT, **BIAS), randn(*IMAGE)
    yield Function(F.instance_norm, None, None, weight, None, True), randn(*LINE)
    yield Function(F.instance_norm, bias=bias, eps=0.1), randn(*VOLUME)
    for norm in (torch.instance_norm, aten.instance_norm.default):
        yield Function(norm, weight, bias, *rest), randn(*IMAGE)
        yield Function(norm, weight, None, *rest), randn(*LINE)
        yield Function(norm, None, bias, *rest), randn(*VOLUME)
