"""What was fused can be fused again, and what only looks quantized or parallel is neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse
from tests.support.helpers import STRUCTURES, Model, assert_fuses, trained, values

if TYPE_CHECKING:
    from tests.support.helpers import Structure

SHAPE = (2, 3, 5, 5)


class Prepared(Model):
    """As models look that are written to be quantized some day."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        return self.dequant(self.sum.add(self.bn(self.conv(x)).sin(), x))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_float_functional_is_not_quantized(structure: Structure) -> None:
    stubs = {"quant": torch.ao.quantization.QuantStub(), "dequant": torch.ao.quantization.DeQuantStub()}
    total = torch.ao.nn.quantized.FloatFunctional()
    model = trained(Prepared(conv=nn.Conv2d(3, 3, 1), bn=nn.BatchNorm2d(3), sum=total, **stubs))
    fused = assert_fuses(model, values(*SHAPE), folded=["bn"], structure=structure)
    assert not Report.of(fx_fuse(fused)).decisions


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_a_quantized_layer_is() -> None:
    with pytest.raises(FuseError, match="quantized"):
        fx_fuse(nn.Sequential(torch.ao.nn.quantized.Linear(3, 4)))


@pytest.mark.parametrize("inputs", [False, True])
def test_data_parallel_is_fused_as_it_is(inputs: bool) -> None:
    model, x = trained(nn.DataParallel(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))), values(*SHAPE)
    fused = assert_fuses(model, x, folded=["module.1"], example_inputs=x if inputs else None)
    assert isinstance(fused, nn.DataParallel)
