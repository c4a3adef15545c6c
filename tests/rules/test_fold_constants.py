"""``fold_constants``: a weight that is computed from parameters alone is computed once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, unchanged, values
from tests.support.samples import graph_text, lines, only, parameter


class Standardised(Model):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return torch.relu(F.conv2d(x, weight, self.bias))


class Scaled(nn.Conv2d):
    """The weight is standardised by the forward of a subclass."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 2, self.bias, self.stride, self.padding)


def test_before_and_after() -> None:
    model = Standardised(weight=parameter(4, 3, 3, 3), bias=parameter(4, seed=1))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["conv2d"])
    assert graph_text(fused) == lines("""
        x = <input>
        bias = self.bias
        weight_1 = self.weight
        conv2d = conv2d(x, weight_1, bias)
        relu = relu(conv2d)
        return relu
    """)
    decision = only(Report.of(fused).folded)
    assert decision.rule == "fold_constants"
    assert decision.into == ("conv2d",)


def test_a_norm_behind_it_is_folded_as_well(structure: Structure) -> None:
    model = trained(nn.Sequential(Scaled(3, 4, 3, stride=2), nn.BatchNorm2d(4)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))
    assert "1" in {d.path for d in Report.of(fused).folded}
    assert not Report.of(fused).skipped


@pytest.mark.parametrize("parametrize", [weight_norm, spectral_norm])
def test_a_parametrized_weight_becomes_a_parameter(parametrize: object, structure: Structure) -> None:
    conv = parametrize(nn.Conv2d(3, 4, 3))  # type: ignore[operator] # one of two functions
    model = trained(nn.Sequential(conv, nn.BatchNorm2d(4)))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6))
    assert "1" in {d.path for d in Report.of(fused).folded}


# -- one precondition broken each


class FromInput(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean())


class Drawn(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.bernoulli(self.weight.sigmoid()) + self.weight)


class ChangedInPlace(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.steps.add_(1)
        return F.conv2d(x, self.weight * self.steps)


class Plain(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


@pytest.mark.parametrize(
    ("cls", "reasons"),
    [(FromInput, set()), (Plain, set()), (Drawn, {Reason.COMPUTED}), (ChangedInPlace, {Reason.MUTATED})],
)
def test_what_is_not_computed_from_constants_alone_stays(cls: type[Model], reasons: set[Reason]) -> None:
    model = cls(weight=parameter(4, 3, 3, 3), steps=torch.ones(1).double())
    with unchanged(model):
        fused = fx_fuse(model)
    assert {d.reason for d in Report.of(fused).decisions} == reasons
    assert not Report.of(fused).folded
    x = values(2, 3, 6, 6)
    for _ in range(2):
        state = torch.get_rng_state()
        expected = model(x)
        torch.set_rng_state(state)
        assert torch.equal(expected, fused(x)) or cls is ChangedInPlace


def test_a_buffer_that_is_changed_in_place_is_still_changed() -> None:
    model = ChangedInPlace(weight=parameter(4, 3, 3, 3), steps=torch.ones(1).double())
    fused = fx_fuse(model)
    x = values(2, 3, 6, 6)
    first, second = fused(x), fused(x)
    assert torch.allclose(first / 2, second / 3)
