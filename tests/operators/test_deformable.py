"""The deformable convolution of torchvision takes norms in like any other, and from before it only scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.extend import Identity, register
from fxfuse.report.errors import FuseError
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, folds, trained, values

ops = pytest.importorskip("torchvision.ops")
X = values(2, 4, 6, 6)


class Deforms(Model):
    """The usual block: offsets and a mask by convolutions of the same value."""

    masked = True

    def _deform(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Any:
        return self.layer(x, offset, mask)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.sigmoid(self.mask(x)) if self.masked else None
        y: Tensor = self.norm(self._deform(x, self.offset(x), mask)).relu()
        return y


class ByFunction(Deforms):
    def _deform(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Any:
        layer = self.layer
        return ops.deform_conv2d(x, offset, layer.weight, layer.bias, layer.stride, padding=layer.padding, mask=mask)


def model(cls: type[Deforms], *, masked: bool = True, **options: Any) -> Any:
    offset, mask = nn.Conv2d(4, 18, 3, padding=1), nn.Conv2d(4, 9, 3, padding=1)
    layer = ops.DeformConv2d(4, 6, 3, padding=1, **options)
    made: Any = trained(cls(layer=layer, offset=offset, mask=mask, norm=nn.BatchNorm2d(6)))
    made.masked = masked
    return made


@pytest.mark.parametrize("cls", [Deforms, ByFunction])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"groups": 2}])
@pytest.mark.parametrize("masked", [False, True])
def test_the_norm_behind_it_folds(structure: Structure, cls: type[Deforms], options: Any, masked: bool) -> None:
    made = model(cls, masked=masked, **options)
    assert_fuses(made, X, folded=["norm"], structure=structure)
    assert_fuses(made, X, folded=["norm"], structure=structure, example_inputs=X)
    program = torch.export.export(made, (X,))
    fused = fx_fuse(program)
    assert_same(made, fused.module(), X)
    assert [d.path for d in Report.of(fused).folded] == ["norm"]


class Before(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.norm(x.relu()), self.offset)
        return y


class Scaled(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.relu() * 3.0, self.offset)
        return y


@pytest.mark.parametrize("groups", [1, 2])
def test_only_a_norm_without_a_shift_goes_on_into_it(groups: int) -> None:
    offset = nn.Parameter(values(2, 18, 6, 6))
    made = trained(
        Before(layer=ops.DeformConv2d(4, 6, 3, padding=1, groups=groups), offset=offset, norm=nn.BatchNorm2d(4))
    )
    (left,) = Report.of(fx_fuse(made)).norms_left
    assert left.detail.endswith(Reason.ZERO_PADDING.sentence(value="layer"))
    scale, x = trained(Scaled(layer=made.layer, offset=offset)), values(2, 4, 6, 6)
    program = torch.export.export(scale, (x,))
    fused = fx_fuse(program)
    assert len(Report.of(fused).folded) == 1
    assert_same(scale, fused.module(), x)


def test_a_norm_that_gives_the_offsets_stays() -> None:
    class Offsets(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x, self.norm(self.offset(x).relu()))
            return y

    layer, offset = ops.DeformConv2d(4, 6, 3, padding=1), nn.Conv2d(4, 18, 3, padding=1)
    made = trained(Offsets(layer=layer, offset=offset, norm=nn.BatchNorm2d(18)))
    fused = fx_fuse(made)
    assert folds(fused) == []
    assert_same(made, fused, X)


def test_its_rows_are_there_before_those_of_the_user() -> None:
    with pytest.raises(FuseError, match="has a row already"):
        register("mine", Identity, modules=[ops.DeformConv2d])
