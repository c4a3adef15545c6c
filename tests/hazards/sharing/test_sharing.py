"""Hazards 1 to 3: a layer called twice, one norm after two layers, one parameter of two modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, reasons, trained, values

WEIGHT_BYTES = 4 * 3 * 3 * 3 * 8
BIAS_BYTES = 4 * 8


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3, **options)


class OneConvTwoNorms(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.conv(x)) * self.second(self.conv(x + 1))


class OneConvOneNormTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn(self.conv(x + 1))


class OneConvWithAndWithoutNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.conv(x + 1)


class OneNormTwoConvs(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.first(x)) * self.bn(self.second(x + 1))


class OneNormOnceFoldable(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.first(x)) * self.bn(self.second(x).relu())


class TwoPairs(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x)) * self.bn2(self.conv2(x + 1))


class TwoNames(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.a(x)) * self.bn2(self.b(x + 1))


def two_norms() -> OneConvTwoNorms:
    return trained(OneConvTwoNorms(conv=conv(), first=nn.BatchNorm2d(4), second=nn.BatchNorm2d(4)))


def tied(*, weight: bool = False, bias: bool = False) -> TwoPairs:
    model = TwoPairs(conv1=conv(), bn1=nn.BatchNorm2d(4), conv2=conv(), bn2=nn.BatchNorm2d(4))
    if weight:
        model.conv2.weight = model.conv1.weight
    if bias:
        model.conv2.bias = model.conv1.bias
    return trained(model)


def test_a_convolution_with_two_norms_gets_a_copy_for_the_second() -> None:
    fused = assert_fuses(two_norms(), values(2, 3, 6, 6), folded=["first", "second"], structure="graph")
    assert Report.of(fused).copied_bytes == WEIGHT_BYTES + BIAS_BYTES


def test_a_convolution_with_two_norms_stays_if_copies_are_not_allowed() -> None:
    left = {"first": Reason.SHARED, "second": Reason.SHARED}
    assert_fuses(two_norms(), values(2, 3, 6, 6), left=left, structure="graph", allow_copies=False)


def test_a_convolution_with_two_norms_stays_where_the_python_forward_calls_it_twice() -> None:
    left = {"first": Reason.OWN_FORWARD, "second": Reason.OWN_FORWARD}
    assert_fuses(two_norms(), values(2, 3, 6, 6), left=left, structure="module")


def test_a_convolution_with_the_same_norm_twice_is_folded_once_for_both(structure: Structure) -> None:
    model = trained(OneConvOneNormTwice(conv=conv(), bn=nn.BatchNorm2d(4)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["bn", "bn"], structure=structure)
    assert Report.of(fused).copied_bytes == 0
    assert list(dict(fused.named_parameters())) == ["conv.weight", "conv.bias"]
    assert Report.of(fused).renamed == {}


def test_a_convolution_used_with_and_without_norm_is_untied() -> None:
    model = trained(OneConvWithAndWithoutNorm(conv=conv(), bn=nn.BatchNorm2d(4)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], structure="graph")
    assert Report.of(fused).copied_bytes == WEIGHT_BYTES + BIAS_BYTES


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"structure": "graph", "allow_copies": False}, Reason.SHARED),
        ({"structure": "module"}, Reason.OWN_FORWARD),
        ({"structure": "module", "allow_copies": False}, Reason.SHARED),
    ],
)
def test_a_convolution_used_with_and_without_norm_stays(options: dict[str, Any], reason: Reason) -> None:
    model = trained(OneConvWithAndWithoutNorm(conv=conv(), bn=nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), left={"bn": reason}, **options)


def test_one_norm_after_two_convolutions_goes_into_both(structure: Structure) -> None:
    model = trained(OneNormTwoConvs(first=conv(), second=conv(), bn=nn.BatchNorm2d(4)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["bn", "bn"], structure=structure)
    assert Report.of(fused).copied_bytes == 0


def test_one_norm_that_folds_at_one_call_only_stays_at_the_other() -> None:
    model = trained(OneNormOnceFoldable(first=conv(), second=conv(), bn=nn.BatchNorm2d(4)))
    left = {"bn": Reason.NOT_LINEAR}
    assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], left=left, structure="graph")


def test_one_norm_that_folds_at_one_call_only_stays_in_a_python_forward() -> None:
    model, inputs = trained(OneNormOnceFoldable(first=conv(), second=conv(), bn=nn.BatchNorm2d(4))), values(2, 3, 6, 6)
    fused = fx_fuse(model, structure="module")
    assert_same(model, fused, inputs)
    assert reasons(fused) == {("bn", Reason.OWN_FORWARD), ("bn", Reason.NOT_LINEAR)}


@pytest.mark.parametrize("tie", [{"weight": True}, {"bias": True}, {"weight": True, "bias": True}])
def test_two_modules_with_one_parameter_are_untied(structure: Structure, tie: dict[str, bool]) -> None:
    model = tied(**tie)
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["bn1", "bn2"], structure=structure)
    assert 0 < Report.of(fused).copied_bytes <= WEIGHT_BYTES + BIAS_BYTES


@pytest.mark.parametrize("tie", [{"weight": True}, {"bias": True}])
def test_two_modules_with_one_parameter_stay_if_copies_are_not_allowed(
    structure: Structure, tie: dict[str, bool]
) -> None:
    left = {"bn1": Reason.SHARED, "bn2": Reason.SHARED}
    assert_fuses(tied(**tie), values(2, 3, 6, 6), left=left, structure=structure, allow_copies=False)


class TiedDecoder(Model):
    def forward(self, tokens: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedding(tokens), self.bn(self.linear(x))


def tied_decoder() -> TiedDecoder:
    model = TiedDecoder(embedding=nn.Embedding(5, 4), linear=nn.Linear(4, 5), bn=nn.BatchNorm1d(5))
    model.linear.weight = model.embedding.weight
    return trained(model)


def test_a_weight_tied_to_an_embedding_is_untied(structure: Structure) -> None:
    fused = assert_fuses(tied_decoder(), torch.arange(4), values(6, 4), folded=["bn"], structure=structure)
    assert Report.of(fused).copied_bytes >= 5 * 4 * 8


def test_a_weight_tied_to_an_embedding_stays_if_copies_are_not_allowed(structure: Structure) -> None:
    left = {"bn": Reason.SHARED}
    inputs = (torch.arange(4), values(6, 4))
    assert_fuses(tied_decoder(), *inputs, left=left, structure=structure, allow_copies=False)


class TiedToUncalled(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def tied_to_uncalled() -> TiedToUncalled:
    model = TiedToUncalled(conv=conv(), bn=nn.BatchNorm2d(4), head=conv())
    model.head.weight = model.conv.weight
    return trained(model)


def test_a_weight_tied_to_a_module_that_forward_does_not_call_is_untied() -> None:
    model = tied_to_uncalled()
    fused: Any = assert_fuses(model, values(2, 3, 6, 6), folded=["bn"], structure="module")
    assert Report.of(fused).copied_bytes >= WEIGHT_BYTES
    assert fused.head.weight is model.conv.weight


def test_a_weight_tied_to_a_module_that_forward_does_not_call_stays_if_copies_are_not_allowed() -> None:
    left = {"bn": Reason.SHARED}
    options: dict[str, Any] = {"structure": "module", "allow_copies": False}
    assert_fuses(tied_to_uncalled(), values(2, 3, 6, 6), left=left, **options)


def test_one_module_under_two_names_is_one_module(structure: Structure) -> None:
    shared = conv()
    model = trained(TwoNames(a=shared, b=shared, bn1=nn.BatchNorm2d(4), bn2=nn.BatchNorm2d(4)))
    if structure == "graph":
        assert_fuses(model, values(2, 3, 6, 6), folded=["bn1", "bn2"], structure=structure)
    else:
        left = {"bn1": Reason.OWN_FORWARD, "bn2": Reason.OWN_FORWARD}
        assert_fuses(model, values(2, 3, 6, 6), left=left, structure=structure)


class ByName(Model):
    """Its convolution is no module: the forward reads the weight by its name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(functional.conv2d(x, self.weight))


@pytest.mark.parametrize("path", ["", "0."])
def test_a_weight_that_only_its_own_forward_reads_is_not_shared(structure: Structure, path: str) -> None:
    inner = ByName(weight=nn.Parameter(values(4, 3, 3, 3)), bn=nn.BatchNorm2d(4))
    model = trained(nn.Sequential(inner, nn.ReLU()) if path else inner)
    inputs, folded = values(2, 3, 6, 6), [f"{path}bn"]
    fused = assert_fuses(model, inputs, folded=folded, structure=structure, allow_copies=False)
    assert Report.of(fused).folded[0].detail == ""


def test_a_weight_that_another_module_holds_too_is_shared_where_the_classes_stay() -> None:
    first, second = (ByName(weight=nn.Parameter(values(3, 3, 1, 1)), bn=norm) for norm in (nn.BatchNorm2d(3), Same()))
    second.weight = first.weight
    model = trained(nn.Sequential(first, second))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["0.bn", "1"], structure="module")
    assert Report.of(fused).folded[0].copied_bytes == (9 + 3) * 8


class Same(nn.Module):
    """Does nothing, and is no row of the table."""

    def forward(self, x: Tensor) -> Tensor:
        return x
