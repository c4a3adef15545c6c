"""One module for several calls: they fold together, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, reasons, trained, values
from tests.support.samples import parameter

IMAGE = (2, 3, 6, 6)


class Affine(nn.Module):
    """A norm that is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = parameter(4, 1, 1), parameter(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.shift


class Siamese(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.block(x), self.block(x + 1)


class Direct(Model):
    """Calls the layers of both branches by itself, one after the other."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed(x), self.embed(x + 1)

    def embed(self, x: Tensor) -> Any:
        return self.second(self.bn(self.conv(x)).relu())


class OnceBehindAnActivation(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.norm(y), self.norm(self.other(x).relu())


class OnceWithAnotherReader(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, z = self.conv(x), self.conv(x + 1)
        return self.bn(y), self.bn(z), z


@pytest.mark.parametrize("norm", [Affine, lambda: nn.BatchNorm2d(4)])
def test_a_block_that_is_called_twice_folds(structure: Structure, norm: Any) -> None:
    model = trained(Siamese(block=nn.Sequential(nn.Conv2d(3, 4, 3), norm(), nn.ReLU())))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    assert set(folds(fused)) == {"block.1"}
    assert reasons(fused) == set()


def test_layers_that_are_called_twice_fold(structure: Structure) -> None:
    model = trained(Direct(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), second=nn.Conv2d(4, 4, 1)))
    fused = assert_fuses(model, values(*IMAGE), folded=["bn", "bn"], structure=structure)
    assert Report.of(fused).copied_bytes == 0


def test_a_written_out_norm_of_which_one_call_cannot_fold_stays_at_both() -> None:
    model = trained(OnceBehindAnActivation(conv=nn.Conv2d(3, 4, 3), other=nn.Conv2d(3, 4, 3), norm=Affine()))
    fused = assert_fuses(model, values(*IMAGE), structure="module")
    assert isinstance(fused.norm, Affine)


def test_a_norm_of_which_one_call_has_another_reader_stays_at_both() -> None:
    model = trained(OnceWithAnotherReader(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    fused = fx_fuse(model, structure="module")
    assert_same(model, fused, values(*IMAGE))
    assert folds(fused) == []
    assert reasons(fused) == {("bn", Reason.OWN_FORWARD), ("bn", Reason.SEVERAL_USES)}
