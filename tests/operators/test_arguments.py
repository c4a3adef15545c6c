"""Arguments that are left out, and constants of which only one half varies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import explain, fx_fuse
from tests.support.helpers import Model, assert_fuses, trained, values


class DefaultEps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.mean, self.variance)


def test_the_eps_that_a_function_adds_by_default() -> None:
    model = trained(DefaultEps(conv=nn.Conv2d(3, 4, 1)))
    model.register_buffer("mean", values(4))
    model.register_buffer("variance", 1e-5 * values(4).abs())  # as large as the eps
    assert_fuses(model, values(2, 3, 4, 4), folded=["batch_norm"])


@pytest.mark.parametrize("norm", [nn.LayerNorm(3), nn.RMSNorm(3)], ids=["layer norm", "rms norm"])
def test_a_norm_that_lost_its_weight_says_so(norm: nn.Module) -> None:
    fused = assert_fuses(trained(nn.Sequential(norm, nn.Linear(3, 4))), values(2, 3), folded=["0"])
    bare = fused.get_submodule("0")
    assert isinstance(bare, (nn.LayerNorm, nn.RMSNorm))
    assert not bare.elementwise_affine
    assert not list(bare.parameters())


def test_a_group_norm_that_lost_its_weight_says_so() -> None:
    """The batch norm in front of it proves the number of axes."""
    layers = [nn.BatchNorm2d(3), nn.ReLU(), nn.GroupNorm(1, 3), nn.Conv2d(3, 4, 1)]
    fused = fx_fuse(trained(nn.Sequential(*layers)))
    bare = fused.get_submodule("2")
    assert isinstance(bare, nn.GroupNorm)
    assert not bare.affine
    assert not list(bare.parameters())


class Shifted(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2) + self.shift


def test_a_shift_alone_goes_back_through_a_reshape() -> None:
    model, inputs = trained(Shifted(conv=nn.Conv2d(3, 4, 1), shift=nn.Parameter(values(4, 1)))), values(2, 3, 4, 4)
    program = torch.export.export(model, (inputs,))
    assert len(explain(program).folded) == 1
    torch.testing.assert_close(fx_fuse(program).module()(inputs), model(inputs), rtol=0, atol=1e-12)


class Repeated(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).repeat(1, 1, 2, 2))


def test_an_affine_goes_on_through_a_repetition_of_every_axis() -> None:
    model, inputs = trained(Repeated(norm=nn.GroupNorm(1, 3), conv=nn.Conv2d(3, 4, 1))), values(2, 3, 4, 4)
    program = torch.export.export(model, (inputs,))
    assert len(explain(program).folded) == 1
    torch.testing.assert_close(fx_fuse(program).module()(inputs), model(inputs), rtol=0, atol=1e-12)
