"""Calls of convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.operators.calls import Function, Single
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVOLUTIONS: dict[int, tuple[type[nn.Module], type[nn.Module], Any, Any]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d, F.conv1d, F.conv_transpose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, F.conv2d, F.conv_transpose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, F.conv3d, F.conv_transpose3d),
}
IN = 4
aten = torch.ops.aten

MODULE_OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"groups": 2, "stride": 2, "padding": 1},
    {"groups": IN, "out_channels": 2 * IN},
    {"padding": "same", "dilation": 2},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": 2, "padding_mode": "reflect", "bias": False},
    {"padding": 1, "padding_mode": "replicate", "groups": 2},
]
TRANSPOSED_OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "dilation": 2},
    {"groups": 2, "stride": 2, "output_padding": 1, "padding": 1},
    {"groups": IN, "out_channels": 3 * IN, "bias": False},
    {"groups": 2, "out_channels": 2},
]


def calls() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """A module that makes one call, the target of the call, and an input."""
    for dims, (conv, transposed, function, transposed_function) in CONVOLUTIONS.items():
        x = randn(2, IN, *[5] * dims)
        for options in MODULE_OPTIONS:
            if options.get("padding_mode") != "reflect" or dims < 3 or hasattr(F, "pad"):
                yield _module(conv, options), conv, x
        for options in TRANSPOSED_OPTIONS:
            yield _module(transposed, options), transposed, x
        for call in _functions(function, dims):
            yield call, function, x
        for call in _transposed_functions(transposed_function, dims):
            yield call, transposed_function, x
        yield _module(conv, {}), conv, x[0]  # without a batch axis
    yield from _linear()
    yield from _embeddings()
    for function in (torch.convolution, aten.convolution.default):
        yield from ((call, function, x) for call, x in _core_convolutions(function))
    yield from _overloads()


def _module(cls: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    settings = {"in_channels": IN, "out_channels": 6, "kernel_size": 3, **options}
    return Single(cls(**settings)).double().eval()


def _functions(function: Any, dims: int) -> Iterator[Function]:
    taps = [3] * dims
    weight, grouped, bias = parameter(6, IN, *taps), parameter(6, IN // 2, *taps), parameter(6, seed=1)
    yield Function(function, weight)
    yield Function(function, weight, bias)
    yield Function(function, grouped, None, 2, 1, 1, 2)
    yield Function(function, weight, stride=2, padding="valid")
    yield Function(function, weight, bias, 1, "same")
    yield Function(function, bias=bias, weight=grouped, groups=2, by_keyword="input")
    yield Function(function, weight=parameter(2 * IN, 1, *taps), groups=IN, dilation=2)


def _transposed_functions(function: Any, dims: int) -> Iterator[Function]:
    taps = [3] * dims
    weight, grouped, bias = parameter(IN, 6, *taps), parameter(IN, 3, *taps), parameter(6, seed=1)
    yield Function(function, weight)
    yield Function(function, weight, bias, 2, 1, 1)
    yield Function(function, grouped, bias, 1, 0, 0, 2, 2)
    yield Function(function, grouped, groups=2, stride=2, output_padding=1)
    yield Function(function, bias=bias, weight=weight, dilation=2, by_keyword="input")


def _linear() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    for x in (randn(3, IN), randn(2, 3, IN), randn(IN)):
        yield Single(nn.Linear(IN, 6)).double(), nn.Linear, x
        yield Single(nn.Linear(IN, 6, bias=False)).double(), nn.Linear, x
    weight, bias = parameter(6, IN), parameter(6, seed=1)
    for call in (
        Function(F.linear, weight),
        Function(F.linear, weight, bias),
        Function(F.linear, weight, bias=bias),
        Function(F.linear, weight=weight, by_keyword="input"),
    ):
        yield call, F.linear, randn(3, IN)


def _embeddings() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    x = torch.tensor([[0, 3, 1], [2, 2, 4]])
    options: dict[str, Any]
    for options in ({}, {"padding_idx": 2}, {"scale_grad_by_freq": True, "sparse": True}):
        yield Single(nn.Embedding(5, IN, **options)).double(), nn.Embedding, x
    for function in (torch.embedding, aten.embedding.default):
        yield Function(function, parameter(5, IN), behind=1), function, x
        yield Function(function, parameter(5, IN), 2, False, True, behind=1), function, x
    yield Function(F.embedding, parameter(5, IN)), F.embedding, x
    yield Function(F.embedding, parameter(5, IN), padding_idx=2), F.embedding, x[0]


def _core_convolutions(function: Any) -> Iterator[tuple[nn.Module, Tensor]]:
    """The one function for convolutions of either kind, with all of its nine arguments."""
    bias = parameter(6, seed=1)
    for dims in (1, 2, 3):
        x, taps, ones, zeros, twos = randn(2, IN, *[5] * dims), [3] * dims, [1] * dims, [0] * dims, [2] * dims
        ordinary, transposed = parameter(6, IN, *taps), parameter(IN, 6, *taps)
        grouped, transposed_grouped = parameter(6, IN // 2, *taps), parameter(IN, 3, *taps)
        for call in (
            Function(function, ordinary, bias, ones, zeros, ones, False, zeros, 1),
            Function(function, grouped, None, twos, ones, twos, False, zeros, 2),
            Function(function, transposed, bias, ones, zeros, ones, True, zeros, 1),
            Function(function, transposed_grouped, None, twos, ones, ones, True, ones, 2),
            Function(function, transposed_grouped, bias, twos, ones, ones, True, ones, 2),
        ):
            yield call, x


def _overloads() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """What torch.export writes for the functions above: every argument in its place."""
    bias = parameter(6, seed=1)
    for dims in (1, 2, 3):
        x, taps, ones, zeros, twos = randn(2, IN, *[5] * dims), [3] * dims, [1] * dims, [0] * dims, [2] * dims
        conv, transposed = getattr(aten, f"conv{dims}d"), getattr(aten, f"conv_transpose{dims}d")
        padding, turned = conv.padding, transposed.default if dims == 1 else transposed.input
        yield Function(conv.default, parameter(6, IN // 2, *taps), None, twos, ones, ones, 2), conv.default, x
        yield Function(padding, parameter(6, IN, *taps), bias, ones, "same", ones), padding, x
        weight = parameter(IN, 3, *taps)
        yield Function(turned, weight, bias, twos, ones, ones, 2), turned, x
        yield Function(turned, weight, None, ones, zeros, zeros, 2, twos), turned, x
    yield Function(aten.linear.default, parameter(6, IN)), aten.linear.default, randn(3, IN)
    yield Function(aten.linear.default, parameter(6, IN), bias), aten.linear.default, randn(2, 3, IN)
