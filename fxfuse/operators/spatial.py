"""Operations along the trailing axes that an affine passes, where it does not vary along them: resize, pad, pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.operators.passage import Passage
from fxfuse.operators.register import SAME, SAME_RANK, row
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.algebra.affine import Affine


class Spatial(Passage):
    """An operation along the last axes, of which its row says how many: ``avg_pool2d`` goes along two."""

    @property
    def spatial(self) -> int:
        """The number in the row."""
        return self.call.operator.spatial or 0

    def passes(self, affine: Affine) -> None:
        """Refuse an affine that varies along these axes."""
        self.require(all(affine.size(axis) == 1 for axis in range(-self.spatial, 0)))


class Resize(Spatial):
    """``interpolate``: every element becomes a weighted mean of elements, and the weights add up to one."""

    axes_of_mode: ClassVar = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}

    @property
    def spatial(self) -> int:
        """The axes that the mode goes along; the others go along all axes but the first two."""
        mode = self.call.get("mode")
        return self.axes_of_mode[mode] if mode in self.axes_of_mode else self.require_axes(self.input) - 2


class Pad(Spatial):
    """``pad``: with a constant that the affine must leave as it is, or with elements of the value."""

    mode: str | None = None

    @property
    def spatial(self) -> int:
        """The axes up to the first that is padded."""
        padded = [number for number, widths in enumerate(reversed(self.sides())) if any(widths)]
        return max(padded, default=-1) + 1

    def sides(self) -> list[tuple[int, int]]:
        """Return what is padded before and behind, from the first axis that is written down to the last."""
        widths = self.call.get("pad", self.call.get("padding"))
        self.require(isinstance(widths, (list, tuple)) and all(isinstance(width, int) for width in widths))
        return list(zip(widths[::2], widths[1::2], strict=False))[::-1]

    @property
    def zeros(self) -> bool:
        """Whether zeros are padded, and nothing is cut off."""
        constant = (self.mode or self.call.get("mode", "constant")) == "constant"
        value = self.call.get("value") or 0
        plain = isinstance(value, (int, float)) and value == 0
        return constant and plain and all(width >= 0 for widths in self.sides() for width in widths)

    def passes(self, affine: Affine) -> None:
        """Refuse an affine that varies along the axes that are padded, or that would change the border."""
        super().passes(affine)
        if self.spatial and (self.mode or self.call.get("mode", "constant")) == "constant":
            value = self.call.get("value") or 0
            self.require(isinstance(value, (int, float)))
            # The border stays if scale * value + shift == value.
            kept = not affine.shifts if value == 0 else bool(((affine.scale * value + affine.shift) == value).all())
            require(kept, Reason.ZERO_PADDING, value=self.call.path)


class PadWithElements(Pad):
    """Modules and overloads that repeat elements of the value."""

    mode = "elements"


class Maximum(Spatial):
    """A max-pool: ``max(scale * x + shift) == scale * max(x) + shift`` for positive scales."""

    def passes(self, affine: Affine) -> None:
        """Refuse an affine that varies within a window, or turns values round."""
        super().passes(affine)
        self.call.require_one_result()
        self.require(not self.call.get("return_indices") and bool((affine.scale > 0).all()))


class Roll(Passage):
    """``roll``: elements go round along some axes."""

    def passes(self, affine: Affine) -> None:
        """Refuse an affine that varies along these axes."""
        axes = self.call.get("dims")
        listed = list(axes) if isinstance(axes, (list, tuple)) else [axes]
        self.require(bool(listed) and all(isinstance(axis, int) for axis in listed))
        rank = self.require_axes(self.input) if any(axis >= 0 for axis in listed) else 0
        self.require(all(affine.size(axis if axis < 0 else axis - rank) == 1 for axis in listed))

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input."""
        return self.sizes_before()


_aten = torch.ops.aten
# Each operation has these in an order of its own. No affine depends on them: they say where to interpolate.
_UPSAMPLE = "input output_size align_corners scale_factors scales scales_d scales_h scales_w"
_KINDS = {
    1: "upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d",
    2: "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    3: "upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d",
}
for _spatial, _names in _KINDS.items():
    for _name in _names.split():
        _packet = getattr(_aten, _name)
        row(_name, Spatial, _UPSAMPLE, _packet.vec, _packet.default, spatial=_spatial, **SAME_RANK)
_element_pads = [getattr(nn, f"{k}Pad{n}d") for k in ("Reflection", "Replication", "Circular") for n in (1, 2, 3)]
_element_pads += [getattr(_aten, f"{k}_pad{n}d").default for k in ("reflection", "replication") for n in (1, 2, 3)]
_POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
_ADAPTIVE = "input output_size return_indices"
# fmt: off
row("interpolate", Resize, "input size scale_factor mode align_corners recompute_scale_factor antialias",
    nn.Upsample, F.interpolate, F.upsample, **SAME_RANK)
row("pad", Pad, "input padding value",
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, **SAME_RANK)
row("pad", Pad, "input pad mode value", F.pad, _aten.pad.default, **SAME_RANK)
row("pad", Pad, "input pad value", torch.constant_pad_nd, _aten.constant_pad_nd.default, **SAME_RANK)
row("pad", PadWithElements, "input padding", *_element_pads, **SAME_RANK)
row("max_pool1d", Maximum, _POOL,
    nn.MaxPool1d, F.max_pool1d, torch.max_pool1d, _aten.max_pool1d.default, spatial=1, **SAME_RANK)
row("max_pool2d", Maximum, _POOL,
    nn.MaxPool2d, F.max_pool2d, torch.max_pool2d, _aten.max_pool2d.default, spatial=2, **SAME_RANK)
row("max_pool3d", Maximum, _POOL,
    nn.MaxPool3d, F.max_pool3d, torch.max_pool3d, _aten.max_pool3d.default, spatial=3, **SAME_RANK)
row("max_pool2d", Maximum, "input", _aten.max_pool2d_with_indices.default, tuples=True, spatial=2, **SAME_RANK)
row("max_pool3d", Maximum, "input", _aten.max_pool3d_with_indices.default, tuples=True, spatial=3, **SAME_RANK)
row("adaptive_max_pool1d", Maximum, _ADAPTIVE, nn.AdaptiveMaxPool1d, F.adaptive_max_pool1d, spatial=1, **SAME_RANK)
row("adaptive_max_pool2d", Maximum, _ADAPTIVE, nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d, spatial=2, **SAME_RANK)
row("adaptive_max_pool3d", Maximum, _ADAPTIVE, nn.AdaptiveMaxPool3d, F.adaptive_max_pool3d, spatial=3, **SAME_RANK)
row("adaptive_max_pool2d", Maximum, "input", _aten.adaptive_max_pool2d.default, tuples=True, spatial=2, **SAME_RANK)
row("adaptive_max_pool3d", Maximum, "input", _aten.adaptive_max_pool3d.default, tuples=True, spatial=3, **SAME_RANK)
row("roll", Roll, "input shifts dims", "roll", torch.roll, _aten.roll.default, **SAME)
