"""Norms computed together give what each gives alone, to the last bit, and none is taken for another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse.algebra.running_norms import Norm, RunningNorms
from tests.support.helpers import assert_equal
from tests.support.samples import randn


def filled(layer: Any) -> Any:
    with torch.no_grad():
        for tensor in (layer.running_mean, layer.running_var, *layer.parameters()):
            tensor.copy_(randn(*tensor.shape).abs() + 0.1)
    return layer


def norm_layer(channels: int, *, eps: float = 1e-5, affine: bool = True, dtype: Any = torch.float32) -> Any:
    return filled(nn.BatchNorm2d(channels, eps=eps, affine=affine).to(dtype))


def norm_of(layer: Any) -> Norm:
    return Norm(layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.eps)


def expected(norm: Norm) -> tuple[Tensor, Tensor]:
    mean, variance, weight, bias = (None if t is None else t.detach().double() for t in norm.constants)
    assert mean is not None
    assert variance is not None
    scale = 1 / (variance + norm.eps).sqrt() * (1 if weight is None else weight)
    return scale, (0 if bias is None else bias) - mean * scale


def layers() -> list[Any]:
    half = norm_layer(4, dtype=torch.float16)
    without_bias = norm_layer(5)
    without_bias.bias = None
    frozen = norm_layer(3).requires_grad_(requires_grad=False)
    odd = [half, without_bias, frozen, norm_layer(2, affine=False), norm_layer(6, eps=0.1), nn.ReLU()]
    return [norm_layer(3), *odd, norm_layer(7), norm_layer(1), filled(nn.InstanceNorm2d(3, track_running_stats=True))]


@pytest.mark.parametrize("first", range(10))
def test_together_as_alone(first: int) -> None:
    modules = layers()
    norms = RunningNorms(modules)
    asked = [modules[first], *modules]  # whichever comes first brings the others with it
    for layer in (layer for layer in asked if not isinstance(layer, nn.ReLU)):
        found = norms.scale_and_shift(norm_of(layer))
        alone = RunningNorms([]).scale_and_shift(norm_of(layer))
        for one, other, wanted in zip(found, alone, expected(norm_of(layer)), strict=True):
            assert torch.equal(one, other)
            assert one.dtype is torch.float64
            assert not one.requires_grad
            assert_equal(one, wanted)


def test_other_constants_are_another_norm() -> None:
    layer = norm_layer(3)
    norms = RunningNorms([layer])
    before = norms.scale_and_shift(norm_of(layer))[0]
    layer.weight = nn.Parameter(2 * layer.weight.detach())
    layer.eps = 0.5
    after = norms.scale_and_shift(norm_of(layer))
    for found, wanted in zip(after, expected(norm_of(layer)), strict=True):
        assert_equal(found, wanted)
    assert not torch.equal(before, after[0])


def test_nothing_out_of_the_ordinary_is_joined() -> None:
    plain = norm_layer(3)
    uneven, none, whole, meta = norm_layer(3), norm_layer(3), norm_layer(3), norm_layer(3).to("meta")
    uneven.weight = nn.Parameter(torch.ones(1))
    none.running_mean = None
    whole.running_var = torch.ones(3, dtype=torch.int64)
    eightfold, without_eps = norm_layer(3).to(torch.float8_e5m2), norm_layer(3)
    none.eps = torch.tensor(1e-5)
    del without_eps.eps
    odd = [uneven, none, whole, meta, eightfold, without_eps, norm_layer(3, eps=1)]
    odd += [nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3, affine=False, track_running_stats=False)]
    scale, _ = RunningNorms([*odd, plain]).scale_and_shift(norm_of(plain))
    assert_equal(scale, expected(norm_of(plain))[0])


def test_one_that_is_out_of_the_ordinary_is_computed_alone() -> None:
    odd = Norm(torch.tensor(2.0), torch.tensor(3.0), None, None, 1e-5)
    scale, shift = RunningNorms([norm_layer(3, affine=False)]).scale_and_shift(odd)
    assert_equal([scale, shift], list(expected(odd)))
