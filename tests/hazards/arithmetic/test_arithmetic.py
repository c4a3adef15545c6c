"""Hazards 17, 18, 19: arithmetic with constants: operands in either order, options of functions, chains, and names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
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


class Apply(Model):
    """Applies a function to the output of a convolution and a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x), self.g)


def applying(function: Any, g: Tensor | None = None) -> Apply:
    constant = values(4, 1, 1) + 3 if g is None else g
    return trained(Apply(conv=nn.Conv2d(3, 4, 3), g=constant, function=function))


FOLDED = {
    "add with alpha": lambda y, g: torch.add(y, g, alpha=3),
    "add to the constant with alpha": lambda y, g: torch.add(g, y, alpha=3),
    "sub with alpha": lambda y, g: torch.sub(y, g, alpha=2),
    "sub from the constant with alpha": lambda y, g: torch.sub(g, y, alpha=2),
    "constant minus value": lambda y, g: g - y,
    "number minus value": lambda y, _: 5 - y,
    "rsub": torch.rsub,
    "rsub with alpha": lambda y, g: torch.rsub(y, g, alpha=2),
    "value over constant": lambda y, g: y / g,
    "value over number": lambda y, _: y / 3,
    "value times integer": lambda y, _: y * 2,
    "integer times value": lambda y, _: 2 * y,
    "method with keyword": lambda y, g: y.mul(other=g),
    "method sub with alpha": lambda y, g: y.sub(g, alpha=2),
    "function with keywords": lambda y, g: torch.add(input=g, other=y, alpha=2),
    "negation": lambda y, _: -y,
}
KEPT = {
    "constant over value": lambda y, g: g / y,
    "number over value": lambda y, _: 1 / y,
    "reciprocal": lambda y, _: y.reciprocal(),
    "floored quotient": lambda y, g: torch.div(y, g, rounding_mode="floor"),
    "truncated quotient": lambda y, g: y.div(g, rounding_mode="trunc"),
    "floor division": lambda y, g: y // g,
    "remainder": lambda y, g: y % g,
    "power": lambda y, g: y**2 + 0 * g.sum() * y.mean(),
    "product with itself": lambda y, _: y * y,
}


@pytest.mark.parametrize("name", FOLDED)
def test_affine_arithmetic_is_folded(structure: Structure, name: str) -> None:
    model = applying(FOLDED[name])
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))
    assert len(folds(fused)) == 1
    assert Report.of(fused).folded[0].into == ("conv",)


@pytest.mark.parametrize("name", KEPT)
def test_other_arithmetic_stays(structure: Structure, name: str) -> None:
    assert_fuses(applying(KEPT[name]), values(2, 3, 6, 6), structure=structure)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_a_constant_of_whole_numbers_is_right_or_left_alone(structure: Structure, dtype: torch.dtype) -> None:
    model = applying(lambda y, g: y * g)
    model.g = torch.tensor([3, 1, 2, 5])[:, None, None].to(dtype)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))


def test_a_division_by_zero_stays(structure: Structure) -> None:
    model = applying(lambda y, g: (y / g).clamp(-9, 9), torch.tensor([1.0, 0.0, 2.0, 3.0])[:, None, None])
    assert_fuses(model, values(2, 3, 6, 6), structure=structure)


# -- names


class TwoFunctions(Model):
    def forward(self, x: Tensor) -> Tensor:
        first = F.conv2d(x, self.v) * self.g
        return F.conv2d(first.relu(), self.w) * self.g


def two_functions() -> TwoFunctions:
    weights = {"v": nn.Parameter(values(4, 3, 3, 3)), "w": nn.Parameter(values(4, 4, 3, 3))}
    # Names that new constants could be given are taken already.
    taken = {"bias": values(1), "v_1": values(1), "weight": values(1), "conv2d_bias": values(1)}
    return trained(TwoFunctions(g=values(4, 1, 1), **weights, **taken))


def test_new_constants_get_names_that_are_free(structure: Structure) -> None:
    model = two_functions()
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 8, 8))
    assert len(folds(fused)) == 2


class TwoFunctionsWithShifts(Model):
    def forward(self, x: Tensor) -> Tensor:
        first = F.conv2d(x, self.v) + self.g
        return F.conv2d(first.relu(), self.w) - 2 * self.g + self.bias


def test_two_new_biases_do_not_take_one_name(structure: Structure) -> None:
    weights = {"v": nn.Parameter(values(4, 3, 3, 3)), "w": nn.Parameter(values(4, 4, 3, 3))}
    model = trained(TwoFunctionsWithShifts(g=values(4, 1, 1), bias=values(4, 1, 1), **weights))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 8, 8))
    assert len(folds(fused)) == 3


class OneWeightTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d(x, self.w) * self.g).relu() * F.conv2d(x + 1, self.w)


def test_a_weight_of_two_functions_is_changed_for_one_of_them(structure: Structure) -> None:
    model = trained(OneWeightTwice(w=nn.Parameter(values(4, 3, 3, 3)), g=values(4, 1, 1)))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))
    assert Report.of(fused).copied_bytes >= model.w.nbytes
    kept = fx_fuse(model, structure=structure, allow_copies=False)
    assert_same(model, kept, values(2, 3, 6, 6))
    assert not Report.of(kept)


class ConvTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.conv_1.mean() + (self.conv(x + 1) * self.g).relu()


def test_a_copy_of_a_module_gets_a_name_that_is_free() -> None:
    model = trained(ConvTwice(conv=nn.Conv2d(3, 4, 3), conv_1=values(3), g=values(4, 1, 1)))
    with unchanged(model):
        fused = fx_fuse(model, structure="graph")
    assert_same(model, fused, values(2, 3, 6, 6))
    assert Report.of(fused).copied_bytes > 0


# -- chains


class Chain(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv(x)) * self.g + self.h
        y = self.bn2(2 * y - self.h)
        return self.bn3(self.bn2(y).relu())


def test_a_chain_is_folded_to_its_fixed_point(structure: Structure) -> None:
    norms = {name: nn.BatchNorm2d(4) for name in ("bn1", "bn2", "bn3")}
    model = trained(Chain(conv=nn.Conv2d(3, 4, 3), g=values(4, 1, 1), h=values(4, 1, 1), **norms))
    inputs = values(2, 3, 6, 6)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, inputs)
    again = fx_fuse(fused, structure=structure)
    assert folds(again) == []
    assert {path for path, _ in reasons(again)} == {"bn3"}
    assert_same(fused, again, inputs)


@pytest.mark.parametrize("norms", [2, 3])
def test_norms_after_norms_are_folded_in_one_rounding(structure: Structure, norms: int) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), *[nn.BatchNorm2d(4) for _ in range(norms)]))
    folded = [str(n) for n in range(1, norms + 1)]
    assert_fuses(model, values(2, 3, 6, 6), folded=folded, structure=structure)
    single = fx_fuse(trained(model).float(), structure=structure)
    exact = fx_fuse(model.double(), structure=structure)
    weights = (dict(f.named_modules())["0"].weight for f in (single, exact))
    assert torch.equal(next(weights), next(weights).float())
