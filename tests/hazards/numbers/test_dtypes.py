"""Hazard 28: dtypes and devices: what a fold makes is like what was there; what does not fit stays apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic

from fxfuse import Reason, Report, fx_fuse
from tests.hazards.numbers.test_numbers import HALVES, NARROW, assert_fuses_nearly, pair, weight_of
from tests.support.helpers import (
    Model,
    Structure,
    assert_fuses,
    assert_same,
    folds,
    reasons,
    trained,
    unchanged,
    values,
)
from tests.support.samples import FOLDS


class Functions(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(F.conv2d(x, self.weight), self.mean, self.var)


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", [*NARROW, torch.float64])
def test_an_added_bias_is_like_the_weight(structure: Structure, dtype: torch.dtype, *, requires_grad: bool) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    model.to(dtype)[0].requires_grad_(requires_grad)
    rtol = max(8 * torch.finfo(dtype).eps, 1e-12)
    inputs = values(2, 3, 6, 6, dtype=dtype)
    fused = assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=rtol)
    for parameter in (fused.get_parameter("0.weight"), fused.get_parameter("0.bias")):
        assert (parameter.dtype, parameter.device) == (dtype, torch.device("cpu"))
        assert parameter.requires_grad is requires_grad
        assert parameter.is_leaf


@pytest.mark.parametrize("requires_grad", [True, False])
def test_an_added_bias_of_a_function_is_like_the_weight(structure: Structure, *, requires_grad: bool) -> None:
    weight = nn.Parameter(values(4, 3, 3, 3), requires_grad=requires_grad)
    model = Functions(weight=weight, mean=values(4) + 3, var=values(4).exp()).eval()
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["batch_norm"], structure=structure)
    assert [p.shape for p in fused.parameters()] == [(4, 3, 3, 3), (4,)]
    assert {p.requires_grad for p in fused.parameters()} == {requires_grad}


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_stays_frozen(structure: Structure, frozen: str) -> None:
    model = pair()
    model[0].get_parameter(frozen).requires_grad_(False)
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert [n for n, p in fused.named_parameters() if not p.requires_grad] == [f"0.{frozen}"]


def test_a_folded_weight_keeps_its_memory_format(structure: Structure) -> None:
    model = pair().to(memory_format=torch.channels_last)
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert weight_of(fused).is_contiguous(memory_format=torch.channels_last)


# -- tensors of several kinds


@pytest.mark.parametrize("dtype", HALVES)
def test_a_wide_norm_after_a_narrow_convolution_is_folded(structure: Structure, dtype: torch.dtype) -> None:
    model, inputs = pair().float(), values(2, 3, 6, 6, dtype=dtype)
    model[0].to(dtype)
    assert model(inputs).dtype is dtype
    rtol = 8 * torch.finfo(dtype).eps
    fused = assert_fuses_nearly(model, inputs, folded=["1"], structure=structure, rtol=rtol)
    assert {p.dtype for p in fused.parameters()} == {dtype}


class Scaled(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) * self.g)


@pytest.mark.parametrize(("narrow", "wide"), [(torch.float16, torch.float32), (torch.float32, torch.float64)])
def test_a_constant_that_widens_the_result_keeps_the_norm(
    structure: Structure, narrow: torch.dtype, wide: torch.dtype
) -> None:
    model = trained(Scaled(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), g=values(4, 1, 1) + 3)).to(wide)
    model.conv.to(narrow)
    inputs = values(2, 3, 6, 6, dtype=narrow)
    assert model(inputs).dtype is wide
    assert_fuses(model, inputs, left={"bn": Reason.PROMOTES}, structure=structure)


def test_a_wide_constant_without_axes_widens_nothing(structure: Structure) -> None:
    model = trained(Scaled(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), g=torch.tensor(3.0))).float()
    model.g = model.g.double()
    inputs = values(2, 3, 6, 6, dtype=torch.float32)
    assert_fuses_nearly(model, inputs, folded=["bn", "mul"], structure=structure, rtol=1e-5)


class Product(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.conv(x) * self.g)


@pytest.mark.parametrize("weight", [torch.complex128, torch.float64])
@pytest.mark.parametrize("constant", [torch.complex128, torch.float64])
def test_complex_numbers_are_right_or_left_alone(
    structure: Structure, weight: torch.dtype, constant: torch.dtype
) -> None:
    model = Product(conv=nn.Conv2d(3, 4, 3, dtype=weight), g=torch.randn(4, 1, 1, dtype=constant)).eval()
    inputs = torch.randn(2, 3, 6, 6, dtype=weight)
    if not (weight.is_complex or constant.is_complex):
        model.g = model.g + 0j
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, inputs)
    assert not Report.of(fused)


@pytest.mark.filterwarnings("ignore:.*(quantization|TypedStorage|deprecated)")
def test_a_norm_after_a_quantized_layer_stays_and_the_other_is_folded(structure: Structure) -> None:
    layers = [nn.Linear(3, 4), nn.BatchNorm1d(4), dynamic.Linear(4, 5), nn.BatchNorm1d(5)]
    model, inputs = trained(nn.Sequential(*layers)).float(), values(2, 3, dtype=torch.float32)
    options: dict[str, Any] = {"structure": structure, "example_inputs": inputs, "rtol": 1e-1}
    assert_fuses_nearly(model, inputs, folded=["1"], left={"3": Reason.NOT_FLOATING}, **options)


@pytest.mark.parametrize("path", ["0", "1"])
def test_layers_without_values_stay_and_the_others_are_folded(structure: Structure, path: str) -> None:
    model = nn.Sequential(pair(), pair()).eval()
    model[1].get_submodule(path).to("meta")
    with unchanged(model):
        fused = fx_fuse(model, structure=structure, rules=FOLDS)
    assert (folds(fused), reasons(fused)) == (["0.1"], {("1.1", Reason.NO_VALUES)})


@pytest.mark.parametrize("path", ["0", "1"])
def test_layers_without_values_are_not_merged(structure: Structure, path: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)).eval()
    model.get_submodule(path).to("meta")
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert (folds(fused), reasons(fused)) == ([], {("1", Reason.NO_VALUES)})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("position", [0, 1])
def test_eight_bits_stay_and_the_rest_is_folded(position: int, dtype: torch.dtype) -> None:
    """Nothing runs on them here: a library for them takes such a model over when it is deployed."""
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), pair())).eval()
    model[position].to(dtype)
    before = {name: tensor.clone() for name, tensor in model[position].named_parameters()}
    fused = fx_fuse(model)
    assert (folds(fused), reasons(fused)) == (["3.1"], {("1", Reason.NOT_FLOATING)})
    for name, tensor in fused.get_submodule(str(position)).named_parameters():
        assert tensor.dtype is dtype
        assert torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))
