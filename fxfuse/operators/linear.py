"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.call import Write
from fxfuse.linear_map import LinearMap
from fxfuse.operator_table import register
from fxfuse.operators.roles import Linear
from fxfuse.report import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_LINEAR_RANK = 2


class Convolution(Linear):
    """``weight`` is ``(groups * out, in, *taps)``; stride, padding and dilation do not matter to the channels."""

    @functools.cached_property
    def weight(self) -> Tensor:
        """The weight as it is stored now."""
        return self.call.tensor("weight", required=True)

    @property
    def output_axis(self) -> int:
        """The axis before the spatial ones."""
        return -1 - (self.weight.ndim - _LINEAR_RANK)

    def linear_map(self) -> LinearMap:
        """Return the weight, split into groups, and the bias."""
        bias = self.call.tensor("bias")
        return LinearMap(self._split(self.weight.detach()), None if bias is None else bias.detach())

    def with_map(self, linear_map: LinearMap) -> Write:
        """Round into new tensors of the same layout."""
        weight = torch.empty_like(self.weight).detach()
        linear_map.round_into(self._split(weight))
        stored = {"weight": weight}
        if linear_map.bias is not None:
            stored["bias"] = linear_map.bias.to(weight.device, weight.dtype, copy=True)
        for name, tensor in stored.items():
            self._require_finite(name, tensor)
        return Write(self.call, stored)

    def _split(self, weight: Tensor) -> Tensor:
        """Return a view of a weight as ``(groups, out, in, *taps)``."""
        return weight.unflatten(0, (self.call.get("groups", 1), -1))

    def _require_finite(self, name: str, tensor: Tensor) -> None:
        # Extrema are NaN if any element is, and need no mask of the size of the weight.
        finite = not tensor.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(tensor))
        require(finite, Reason.NOT_FINITE, value=self.call.path, name=name, dtype=tensor.dtype)


class TransposedConvolution(Convolution):
    """``weight`` is ``(groups * in, out, *taps)``: the output channels are the second axis, within each group."""

    def _split(self, weight: Tensor) -> Tensor:
        """Split the input channels into groups, and bring the output channels to the front."""
        return super()._split(weight).transpose(1, 2)


class LinearLayer(Convolution):
    """``weight`` is ``(out, in)``: a convolution without taps."""

    @property
    def output_axis(self) -> int:
        """The last axis."""
        return -1

    def _split(self, weight: Tensor) -> Tensor:
        """Return the one group there is."""
        fits = weight.ndim == _LINEAR_RANK
        require(fits, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="its weight is a vector")
        return weight[None]


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")

_aten = torch.ops.aten
_TRANSPOSED_1D = [F.conv_transpose1d, _aten.conv_transpose1d.default]
_TRANSPOSED_2D = [F.conv_transpose2d, _aten.conv_transpose2d.input]
_TRANSPOSED_3D = [F.conv_transpose3d, _aten.conv_transpose3d.input]
_Row: TypeAlias = "tuple[str, type[Linear], tuple[str, ...], type[nn.Module], list[Callable[..., Any]]]"
_ROWS: tuple[_Row, ...] = (
    ("conv1d", Convolution, _CONVOLUTION, nn.Conv1d, [F.conv1d, _aten.conv1d.default, _aten.conv1d.padding]),
    ("conv2d", Convolution, _CONVOLUTION, nn.Conv2d, [F.conv2d, _aten.conv2d.default, _aten.conv2d.padding]),
    ("conv3d", Convolution, _CONVOLUTION, nn.Conv3d, [F.conv3d, _aten.conv3d.default, _aten.conv3d.padding]),
    (
        "conv_transpose1d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose1d,
        [F.conv_transpose1d, _aten.conv_transpose1d.default],
    ),
    (
        "conv_transpose2d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose2d,
        [F.conv_transpose2d, _aten.conv_transpose2d.input],
    ),
    (
        "conv_transpose3d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose3d,
        [F.conv_transpose3d, _aten.conv_transpose3d.input],
    ),
    ("linear", LinearLayer, ("input", "weight", "bias"), nn.Linear, [F.linear, _aten.linear.default]),
)
for _name, _view, _arguments, _module, _functions in _ROWS:
    register(_name, _view, arguments=_arguments, modules=[_module], functions=_functions)
