"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fxfuse.algebra.geometry import Misfit, fits
from fxfuse.algebra.linear_map import LinearMap, are_finite, split, vector_of
from fxfuse.graph.plan import Write
from fxfuse.operators.register import SAME_RANK, row
from fxfuse.operators.roles import Linear
from fxfuse.operators.windows import changed_arguments, geometry_of, module_attributes, transposed_geometry
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fxfuse.algebra.filters import Filter
    from fxfuse.algebra.geometry import Geometry

_LINEAR_RANK = 2
_IMAGES = 4  # axes of the weights that can lie with the channels last


class Convolution(Linear):
    """``weight`` is ``(groups * out, in, *taps)``; stride, padding and dilation do not matter to the channels.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import Convolution, Graph
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 5, padding=2))))
        >>> view = graph.view(graph.nodes[1])
        >>> isinstance(view, Convolution), view.reads_zeros
        (True, True)
    """

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
        kernel = self._split(self.weight, self._groups())
        channels = kernel.shape[0] * kernel.shape[1]
        whole = bias is None or bias.shape == (channels,) or self._broadcasts(bias, channels)
        detail = "" if whole else f"of shape {tuple(bias.shape)}, for {channels} channels"
        require(whole, Reason.MALFORMED, name="bias", value=self.call.path, detail=detail)
        return LinearMap(kernel, None if bias is None else vector_of(bias, channels))

    def _groups(self) -> Any:
        """Return the number of groups, which may be written as the size of an axis."""
        groups = self.call.get("groups", 1)
        if not isinstance(groups, fx.Node):
            return groups
        known = self.call.graph.sizes.asked(groups)
        require(isinstance(known, int), Reason.COMPUTED, name="groups", value=self.call.path)
        return known

    def _broadcasts(self, bias: Tensor, channels: int) -> bool:  # noqa: ARG002 - another kind of layer allows it
        return False

    def geometry(self) -> Geometry:
        """Return its arguments as numbers for each axis."""
        taps = self.weight.shape[_LINEAR_RANK:]
        return transposed_geometry(self.call, taps) if self._transposed else geometry_of(self.call, taps)

    def with_map(self, linear_map: LinearMap) -> Write:
        """Round into new tensors of the same layout."""
        return self._write(linear_map, {})

    def with_filter(self, merged: Filter) -> Write:
        """Round into new tensors, and let the call have the geometry that they need."""
        return self._write(merged.linear_map, self._changed(merged.geometry, merged.linear_map))

    def with_geometry(self, geometry: Geometry) -> Write:
        """Return the edit that gives the call another geometry, for the same weights.

        Raises:
            Misfit: if it has no arguments for that.
        """
        return Write(self.call, {}, attributes=self._changed(geometry, self.linear_map()))

    def _changed(self, geometry: Geometry, linear_map: LinearMap) -> dict[str, Any]:
        """Return the attributes, or arguments, that a geometry and a kernel need."""
        shape = tuple(linear_map.stored.shape)
        changed = changed_arguments(self.call, geometry, shape[0]) if geometry.axes else {}
        word = isinstance(self.call.get("padding"), str) or getattr(self.node.target, "_overloadname", "") == "padding"
        fits(self.call.module is not None or not (word and "padding" in changed), "its padding is a word")
        return changed if self.call.module is None else module_attributes(changed, geometry, shape)

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        tensors = linear_map.rounded(self._like(linear_map.stored.shape), inputs_first=self._inputs_first)
        stored = dict(zip(("weight", "bias"), tensors, strict=False))
        if not are_finite(*stored.values()):
            name = next(name for name, tensor in stored.items() if not are_finite(tensor))
            raise Refusal(Reason.NOT_FINITE, value=self.call.path, name=name, dtype=self.weight.dtype)
        return Write(self.call, stored, attributes=attributes)

    def _like(self, shape: torch.Size) -> Tensor:
        """Return a weight for a kernel of this shape, in the layout of the present one; its values do not matter."""
        like, sizes = self.weight, self._joined(shape)
        if tuple(like.shape) == sizes:
            return like
        last = like.ndim == _IMAGES and like.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last and not like.is_contiguous() else torch.contiguous_format
        return torch.empty(sizes, dtype=like.dtype, device=like.device, memory_format=order)

    @property
    def reads_zeros(self) -> bool:
        """Whether it pads with zeros; a transposed convolution lets fewer taps reach its border."""
        taps = self.weight.shape[_LINEAR_RANK:]
        if self._transposed:
            return bool(taps) and not self._reads_each_once
        if self.call.get("padding_mode", "zeros") != "zeros":
            return False
        padding = self.call.get("padding")
        if isinstance(padding, str):
            return padding != "valid" and any(size > 1 for size in taps)
        return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)

    @property
    def _reads_each_once(self) -> bool:
        """Whether a transposed convolution has one tap, and each output one input."""
        try:
            fixed = self.geometry().fixed
        except Misfit:
            return False
        steps, *padded = fixed[:3] if isinstance(fixed, tuple) else ((0,),)
        return all(size == 1 for size in (*self.weight.shape[_LINEAR_RANK:], *steps)) and not any(map(any, padded))

    def taken_sizes(self) -> Mapping[int, int]:
        """Return the sizes of the input for all others of which it raises: the number of channels."""
        return {self.input_axis: self.linear_map().in_channels}

    def known_sizes(self) -> Mapping[int, int]:
        """Return the number of channels, and how many positions there are of an input of known size."""
        found, before = dict(super().known_sizes()), self.sizes_before()
        try:
            axes = () if self._transposed else self.geometry().axes
        except Misfit:
            return found
        for number, axis in enumerate(axes, -len(axes)):
            if number in before:
                found[number] = (before[number] + axis.margin - 1) // axis.stride + 1
        return found

    @property
    def _transposed(self) -> bool:
        # One function of ATen does both; modules of either kind say which they are.
        return bool(self.call.get("transposed"))

    def _split(self, weight: Tensor, groups: int) -> Tensor:
        """Return a view of a weight as ``(groups, out, in, *taps)``."""
        fit = type(groups) is int and groups > 0 and weight.ndim >= _LINEAR_RANK and len(weight) % groups == 0
        detail = "" if fit else f"of shape {tuple(weight.shape)}, for {groups!r} groups"
        require(fit, Reason.MALFORMED, name="weight", value=self.call.path, detail=detail)
        return split(weight, groups, self._inputs_first)

    @property
    def _inputs_first(self) -> bool:
        """Whether the first axis of the weight is that of the inputs."""
        return self._transposed

    def _joined(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape of the weight that is split into ``shape``."""
        groups, out, inputs, *taps = shape
        return (groups * inputs, out, *taps) if self._inputs_first else (groups * out, inputs, *taps)


class TransposedConvolution(Convolution):
    """``weight`` is ``(groups * in, out, *taps)``: the output channels are the second axis, within each group."""

    def geometry(self) -> Geometry:
        """Return its arguments as numbers for each axis; an output_size in a call decides the padding anew."""
        fits(self.call.module is None or len((*self.node.args, *self.node.kwargs)) == 1, "it is told its output_size")
        return super().geometry()

    @property
    def _transposed(self) -> bool:
        return True


class LinearLayer(Convolution):
    """``weight`` is ``(out, in)``: a convolution without taps.

    Example:
        >>> from fxfuse.extend import Convolution, LinearLayer
        >>> issubclass(LinearLayer, Convolution)
        True
    """

    @property
    def output_axis(self) -> int:
        """The last axis."""
        return -1

    @property
    def reads_zeros(self) -> bool:
        """Never."""
        return False

    def _broadcasts(self, bias: Tensor, channels: int) -> bool:
        """Whether the function takes a bias of this shape, as the sum of a product and that."""
        return bias.numel() == 1 or (bias.shape[-1] == bias.numel() == channels)

    def _split(self, weight: Tensor, groups: int) -> Tensor:
        """Return the one group there is."""
        matrix = weight.ndim == _LINEAR_RANK and groups == 1
        require(matrix, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="its weight is a vector")
        return split(weight, 1, self._inputs_first)


_aten = torch.ops.aten
_CONVOLUTION = "input weight bias stride padding dilation groups padding_mode"
_TRANSPOSED = "input weight bias stride padding output_padding groups dilation output_size"  # the last for modules
# fmt: off
row("conv1d", Convolution, _CONVOLUTION,
    nn.Conv1d, F.conv1d, _aten.conv1d.default, _aten.conv1d.padding, spatial=1, takes=(2, 3), **SAME_RANK)
row("conv2d", Convolution, _CONVOLUTION,
    nn.Conv2d, F.conv2d, _aten.conv2d.default, _aten.conv2d.padding, spatial=2, takes=(3, 4),
    strides="dense", **SAME_RANK)
row("conv3d", Convolution, _CONVOLUTION,
    nn.Conv3d, F.conv3d, _aten.conv3d.default, _aten.conv3d.padding, spatial=3, takes=(4, 5),
    strides="dense", **SAME_RANK)
row("conv_transpose1d", TransposedConvolution, _TRANSPOSED,
    nn.ConvTranspose1d, F.conv_transpose1d, _aten.conv_transpose1d.default, spatial=1, takes=(2, 3), **SAME_RANK)
row("conv_transpose2d", TransposedConvolution, _TRANSPOSED,
    nn.ConvTranspose2d, F.conv_transpose2d, _aten.conv_transpose2d.input, spatial=2, takes=(3, 4),
    strides="dense", **SAME_RANK)
row("conv_transpose3d", TransposedConvolution, _TRANSPOSED,
    nn.ConvTranspose3d, F.conv_transpose3d, _aten.conv_transpose3d.input, spatial=3, takes=(4, 5),
    strides="dense", **SAME_RANK)
row("convolution", Convolution, "input weight bias stride padding dilation transposed output_padding groups",
    torch.convolution, _aten.convolution.default, strides="dense", **SAME_RANK)
row("linear", LinearLayer, "input weight bias",
    nn.Linear, F.linear, _aten.linear.default, shape="linear", spatial=0, result="new", strides="fixed")
