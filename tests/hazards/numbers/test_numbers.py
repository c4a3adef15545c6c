"""Hazards 26, 27: numbers: one rounding, nothing that is not finite, and tensors of other dtypes and devices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fxfuse import Reason, fx_fuse
from tests.support.helpers import Structure, assert_fuses, assert_same, folds, reasons, trained, unchanged, values

HALVES = [torch.float16, torch.bfloat16]
NARROW = [*HALVES, torch.float32]


def pair(**options: Any) -> Any:
    """A convolution with a norm; ``options`` are those of the norm."""
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options)))


def assert_fuses_nearly(
    model: nn.Module,
    inputs: Tensor,
    *,
    rtol: float,
    folded: list[str],
    left: dict[str, Reason] | None = None,
    **options: Any,
) -> nn.Module:
    """As ``assert_fuses``, up to the rounding of a narrow dtype."""
    with unchanged(model):
        fused = fx_fuse(model, **options)
    assert_same(model, fused, inputs, rtol=rtol)
    assert (folds(fused), reasons(fused)) == (folded, set((left or {}).items()))
    return fused


def weight_of(model: nn.Module, path: str = "0") -> Tensor:
    return model.get_parameter(f"{path}.weight")


# -- one rounding


@pytest.mark.parametrize("dtype", NARROW)
def test_a_fold_is_computed_in_float64_and_rounded_once(structure: Structure, dtype: torch.dtype) -> None:
    model, inputs = pair().to(dtype), values(2, 3, 6, 6, dtype=dtype)
    fused = assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=8 * torch.finfo(dtype).eps)
    conv, norm = copy.deepcopy(model).double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    exact = {"weight": conv.weight * scale[:, None, None, None]}
    exact["bias"] = (conv.bias - norm.running_mean) * scale + norm.bias
    for name, tensor in exact.items():
        assert torch.equal(fused.get_parameter(f"0.{name}"), tensor.to(dtype))


def deep(dtype: torch.dtype) -> Any:
    layers: list[nn.Module] = []
    for n in range(12):
        layers += [nn.Conv2d(3 if n == 0 else 16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return trained(nn.Sequential(*layers)).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_twelve_folds_are_closer_than_twelve_folds_in_half_precision(structure: Structure, dtype: torch.dtype) -> None:
    model, inputs = deep(dtype), values(4, 3, 12, 12, dtype=dtype)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert (len(folds(fused)), reasons(fused)) == (12, set())
    narrow = nn.Sequential()
    for n in range(0, len(model), 3):
        narrow.extend([fuse_conv_bn_eval(model[n], model[n + 1]), nn.ReLU()])
    exact = copy.deepcopy(model).double()
    assert error(fused, exact, inputs) < error(narrow, exact, inputs)


def error(model: nn.Module, exact: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs).double() - exact(inputs.double())).norm())


# -- what is not finite


def tiny(variance: float, eps: float, dtype: torch.dtype) -> Any:
    """The scale of its norm is large; its mean is zero, so that small inputs give finite outputs."""
    model = pair(eps=eps)
    model[1].running_var.fill_(variance)
    model[1].running_mean.zero_()
    return model.to(dtype)


def test_a_weight_that_overflows_half_precision_keeps_the_norm(structure: Structure) -> None:
    model = tiny(0.0, 1e-14, torch.float16)
    inputs = 1e-4 * values(2, 3, 6, 6, dtype=torch.float16)
    model[0].bias.data.zero_()
    assert_fuses(model, inputs, left={"1": Reason.NOT_FINITE}, structure=structure)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_wider_dtype_holds_the_same_weight(structure: Structure, dtype: torch.dtype) -> None:
    model, inputs = tiny(0.0, 1e-14, dtype), values(2, 3, 6, 6, dtype=dtype)
    rtol = 16 * torch.finfo(dtype).eps
    assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=max(rtol, 1e-12))


def test_an_eps_that_half_precision_cannot_hold_is_used_exactly(structure: Structure) -> None:
    model = tiny(0.0, 1e-8, torch.float16)
    inputs = 1e-3 * values(2, 3, 6, 6, dtype=torch.float16)
    fused = assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=1e-2)
    expected = (weight_of(model).double() * model[1].weight.double()[:, None, None, None] * 1e4).half()
    assert torch.equal(weight_of(fused), expected)


def test_a_bias_that_overflows_keeps_the_norm(structure: Structure) -> None:
    model: Any = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))).half()
    model[0].weight.data.fill_(1 / 27)
    model[1].running_mean.fill_(1000)
    model[1].running_var.fill_(1e-4)
    model[1].bias.data.zero_()
    inputs = 1000 + 4 * values(2, 3, 6, 6, dtype=torch.float16)
    assert_fuses(model, inputs, left={"1": Reason.NOT_FINITE}, structure=structure)


def test_a_large_mean_that_the_bias_takes_back_is_folded_without_overflow(structure: Structure) -> None:
    model = pair().half()
    model[1].running_mean.fill_(6e4)
    model[0].bias.data.fill_(6e4)
    fused = fx_fuse(model, structure=structure)
    assert (folds(fused), reasons(fused)) == (["1"], set())
    exact, inputs = copy.deepcopy(model).double(), values(2, 3, 6, 6, dtype=torch.float16)
    assert error(fused, exact, inputs) < error(model, exact, inputs) / 10


def test_a_weight_of_which_the_sum_overflows_is_folded(structure: Structure) -> None:
    model: Any = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).half()
    model[0].weight.data.fill_(4e3)
    model[1].weight.data.abs_()
    inputs = 1e-3 * values(2, 3, 6, 6, dtype=torch.float16)
    fused = assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=1e-2)
    assert weight_of(fused).sum().isinf()


@pytest.mark.parametrize("variance", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_broken_variance_keeps_the_norm_or_means_the_same(
    structure: Structure, variance: float, dtype: torch.dtype
) -> None:
    model, inputs = pair().to(dtype), values(2, 3, 6, 6, dtype=dtype)
    model[1].running_var[2] = variance
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    given, expected = fused(inputs), model(inputs)
    assert torch.allclose(given, expected, rtol=1e-4, equal_nan=True)
    assert torch.equal(given.isfinite(), expected.isfinite())
    if variance != float("inf"):
        assert reasons(fused) == {("1", Reason.NOT_FINITE)}


def test_a_scale_of_zero_is_folded(structure: Structure) -> None:
    model = pair()
    model[1].weight.data[1] = 0
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert not weight_of(fused)[1].any()
