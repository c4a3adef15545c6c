"""Operations along the trailing axes that an affine passes, where it does not vary along them: resize, pad, pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.operators.passage import Passage
from fxfuse.operators.register import register
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.algebra.affine import Affine


class Spatial(Passage):
    """An operation along the last axes, of which the name of the row says how many: ``avg_pool2d`` two."""

    @property
    def spatial(self) -> int:
        """The number in the name."""
        return int(self.call.operator.name[-2])

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
        widths = self.call.get("pad", self.call.get("padding"))
        self.require(isinstance(widths, (list, tuple)) and all(isinstance(width, int) for width in widths))
        padded = [side // 2 for side, width in enumerate(widths) if width]
        return max(padded, default=-1) + 1

    def passes(self, affine: Affine) -> None:
        """Refuse an affine that varies along the axes that are padded, or that would change the border."""
        super().passes(affine)
        if self.spatial and (self.mode or self.call.get("mode", "constant")) == "constant":
            value = self.call.get("value") or 0
            self.require(isinstance(value, (int, float)))
            # The border stays if scale * value + shift == value.
            kept = bool(((affine.scale * value + affine.shift) == value).all())
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
_SIZES = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
register(
    "interpolate",
    Resize,
    arguments=("input", *_SIZES),
    modules=[nn.Upsample],
    functions=[F.interpolate, F.upsample],
)
# In another order for each, and of no matter: they say where the result lies, not what it is made of.
_UPSAMPLE = ("input", "output_size", "align_corners", "scale_factors", "scales", "scales_d", "scales_h", "scales_w")
for _name in (
    *("upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"),
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d"),
):
    _overloads = [getattr(_aten, _name).vec, getattr(_aten, _name).default]
    register(_name, Spatial, arguments=_UPSAMPLE, functions=_overloads)
for _packet in (_aten._upsample_bilinear2d_aa, _aten._upsample_bicubic2d_aa):
    register("upsample_aa2d", Spatial, arguments=_UPSAMPLE, functions=[_packet.vec, _packet.default])

_zero_pads = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
register("pad", Pad, arguments=("input", "padding", "value"), modules=_zero_pads)
register("pad", Pad, arguments=("input", "pad", "mode", "value"), functions=[F.pad, _aten.pad.default])
register(
    "pad", Pad, arguments=("input", "pad", "value"), functions=[torch.constant_pad_nd, _aten.constant_pad_nd.default]
)
_PADS = ("Reflection", "Replication", "Circular")
_element_pads: list[Any] = [getattr(nn, f"{kind}Pad{axes}d") for kind in _PADS for axes in (1, 2, 3)]
_kinds = [f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)]
register(
    "pad",
    PadWithElements,
    arguments=("input", "padding"),
    modules=_element_pads,
    functions=[getattr(_aten, kind).default for kind in _kinds],
)

_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_ADAPTIVE = ("input", "output_size", "return_indices")
for _axes in ("1d", "2d", "3d"):
    _name = "max_pool" + _axes
    _functions = [getattr(F, _name), getattr(torch, _name), getattr(_aten, _name).default]
    register(_name, Maximum, arguments=_POOL, modules=[getattr(nn, "MaxPool" + _axes)], functions=_functions)
    _name, _module = "adaptive_max_pool" + _axes, getattr(nn, "AdaptiveMaxPool" + _axes)
    register(_name, Maximum, arguments=_ADAPTIVE, modules=[_module], functions=[getattr(F, _name)])
for _name in ("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d"):
    _pool = _name.removesuffix("_with_indices")
    register(_pool, Maximum, arguments=("input",), functions=[getattr(_aten, _name).default], tuples=True)
register(
    "roll", Roll, arguments=("input", "shifts", "dims"), methods=["roll"], functions=[torch.roll, _aten.roll.default]
)
