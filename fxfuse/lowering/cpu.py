"""Kernels of oneDNN, which ship with torch: convolution, sum and activation at once, with packed weights."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxfuse.lowering.activations import RELU
from fxfuse.lowering.layer import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.lowering.layer import Layer

MANY_ROWS = 32
"""From so many rows on a linear layer runs with packed weights; below, reading them takes most of the time."""


def onednn_obstacle(dtype: torch.dtype) -> str:
    """Return why oneDNN has no kernels of a dtype here, empty where it has."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    names = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if dtype in names:
        supported = getattr(torch.ops.mkldnn, names[dtype])()
        return "" if supported else f"this processor has no instructions for {dtype}"
    return "" if dtype == torch.float32 else f"oneDNN has no kernels of {dtype}"


class CpuEmitter:
    """Makes kernels of oneDNN; with ``exact_nan``, torch computes the activations that would drop NaN."""

    def __init__(self, *, exact_nan: bool = False) -> None:
        """Remember whether activations have to pass NaN on."""
        self.exact_nan = exact_nan

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        why = onednn_obstacle(layer.weight.dtype) if layer.weight.device.type == "cpu" else "it is on another device"
        if layer.weight.numel() == 0 or (layer.bias is not None and layer.bias.dtype != layer.weight.dtype):
            why = why or "its weight and bias have different dtypes, or no elements"
        if layer.kind == "norm" and layer.weight.dtype != torch.float32:
            why = why or "a norm in half precision computes in single"
        if layer.kind == "transposed" and layer.groups > 1 and layer.groups == layer.weight.shape[0]:
            why = why or "a depth-wise transposed convolution"
        if any(more >= stride for more, stride in zip(layer.output_padding, layer.stride, strict=False)):
            why = why or "its output padding is as large as its stride"
        return why

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return a kernel; ``missed`` is told where torch's own operations run in its place."""
        activation = layer.activation
        fused = activation is not None and not (self.exact_nan and activation.drops_nan)
        if layer.sums:  # oneDNN applies no other activation behind a sum
            fused = fused and activation is RELU
        if layer.kind == "norm":
            return _norm(layer, missed)
        return (_linear if layer.kind == "linear" else _convolution)(layer, missed, fused=fused)


class Packed:
    """A packed weight, made on first use, for the size that is seen then."""

    def __init__(self, pack: Callable[[Any], Tensor]) -> None:
        """Remember how to pack it."""
        self._pack, self._lock = pack, threading.Lock()
        self.value: Tensor | None = None

    def get(self, size: Any) -> Tensor:
        """Return the weight."""
        with self._lock:
            if self.value is None:
                # Not for the length of an inference-mode block alone.
                with torch.inference_mode(mode=False), torch.no_grad():
                    self.value = self._pack(size)
            return self.value


def _post(layer: Layer, *, fused: bool) -> tuple[tuple[Any, ...], Callable[[Tensor], Tensor] | None]:
    """Return the activation as oneDNN's arguments, and as what torch does behind the kernel."""
    activation = layer.activation
    if activation is None or not fused:
        return ("none", [], ""), None if activation is None else activation.plain
    return (activation.onednn, list(activation.numbers), activation.algorithm), None


def _convolution(layer: Layer, missed: Callable[[], None], *, fused: bool) -> Callable[..., Tensor]:
    """Return a convolution or transposed convolution with a packed weight."""
    steps, lines, dim, dtype = plain(layer), layer.axes == 1, layer.axes + 2, layer.weight.dtype
    layer = layer.as_image() if lines else layer  # along one axis it is one of images of height one
    weight, bias, form, groups = layer.weight.detach(), layer.bias, layer.memory_format, layer.groups
    transposed = layer.kind == "transposed"
    more = [layer.output_padding] if transposed else []
    numbers = [list(each) for each in (layer.padding, *more, layer.stride, layer.dilation)]
    mkldnn = torch.ops.mkldnn
    pack = mkldnn._reorder_convolution_transpose_weight if transposed else mkldnn._reorder_convolution_weight
    packed = Packed(lambda size: pack(weight, *numbers, groups, list(size)))
    unary = mkldnn._convolution_transpose_pointwise if transposed else mkldnn._convolution_pointwise
    convolve, (post, after) = unary.default._op, _post(layer, fused=fused)
    summed = _summed(layer, numbers, lines=lines, fused=fused)
    # On one pixel (squeeze-and-excite) a convolution of one tap is a linear layer, which starts in a fifth of the time.
    (outputs, inputs, *taps), rows, ones = weight.shape, weight.flatten(1), (1,) * layer.axes
    one_tap = set(taps) == {1} and groups == 1 and not (transposed or lines or layer.sums or any(layer.padding))
    finish = None if layer.activation is None else layer.activation.plain

    def run(x: Tensor, *other: Tensor) -> Tensor:
        if one_tap and x.shape[2:] == ones and x.dtype is dtype and x.is_cpu:
            y = F.linear(x.reshape(x.shape[0], inputs), rows, bias)
            return (y if finish is None else finish(y)).view(x.shape[0], outputs, *ones)
        if not x.is_contiguous(memory_format=form) or lines or x.dtype is not dtype or not x.is_cpu or not x.numel():
            if x.dim() != dim or x.dtype is not dtype or not x.is_cpu or not x.numel():
                missed()
                return steps(x, *other)
            x = (x.unsqueeze(2) if lines else x).contiguous(memory_format=form)
        made = packed.value
        made = packed.get(x.shape) if made is None else made
        y = summed(x, made, *other) if other else convolve(x, made, bias, *numbers, groups, *post)
        y = y if after is None else after(y)
        return y.squeeze(2) if lines else y

    return run


def _summed(layer: Layer, numbers: list[list[int]], *, lines: bool, fused: bool) -> Callable[..., Tensor]:
    """Return a convolution of an image that is ready, with the sum, written in place where that is possible."""
    ops = torch.ops.mkldnn
    in_place, beside = ops._convolution_pointwise_.binary._op, ops._convolution_pointwise.binary._op
    bias, form, groups = layer.bias, layer.memory_format, layer.groups
    unary = ops._convolution_pointwise.default._op
    post: Any = ("add", 1.0, "relu" if fused else None, [], None)
    shape_of_result = functools.lru_cache(maxsize=64)(layer.shape_of_result)

    def run(x: Tensor, weight: Tensor, other: Any) -> Tensor:
        z = other.unsqueeze(2) if lines and isinstance(other, Tensor) and other.dim() == 3 else other
        whole = isinstance(z, Tensor) and z.dtype is x.dtype and z.is_cpu
        if whole and z.shape == shape_of_result(x.shape):
            if layer.in_place and z.is_contiguous(memory_format=form):
                return in_place(z, x, weight, bias, *numbers, groups, *post)
            if groups == 1:
                return beside(x, z.contiguous(memory_format=form), weight, bias, *numbers, groups, *post)
        y = unary(x, weight, bias, *numbers, groups, "none", [], "")
        y = (y.squeeze(2) + other).unsqueeze(2) if lines else y + other
        return torch.relu_(y) if fused else y

    return run


def _linear(layer: Layer, missed: Callable[[], None], *, fused: bool) -> Callable[..., Tensor]:
    """Return a linear layer, with a packed weight for many rows."""
    steps, weight, bias = plain(layer), layer.weight.detach(), layer.bias
    packed = Packed(lambda rows: torch.ops.mkldnn._reorder_linear_weight(weight, rows))
    op, dtype, features = torch.ops.mkldnn._linear_pointwise.default._op, weight.dtype, weight.shape[1]
    post, after = _post(layer, fused=fused)

    def run(x: Tensor) -> Tensor:
        if x.dtype is not dtype or not x.is_cpu:
            missed()
            return steps(x)
        rows = x.numel() // features
        if rows < MANY_ROWS or x.dim() < 2 or x.shape[-1] != features:
            return steps(x)
        made = packed.value
        y = op(x, packed.get(rows) if made is None else made, bias, *post)
        return y if after is None else after(y)

    return run


def _norm(layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
    """Return a norm as one multiplication and addition, with its activation in place."""
    steps, activation, dtype, channels = plain(layer), layer.activation, layer.weight.dtype, len(layer.weight)
    shift = torch.zeros_like(layer.weight) if layer.bias is None else layer.bias
    shapes = {dim: (1, -1, *[1] * (dim - 2)) for dim in layer.ranks}
    forms = {dim: (shift.view(shape), layer.weight.view(shape)) for dim, shape in shapes.items()}

    def run(x: Tensor) -> Tensor:
        form = forms.get(x.dim())
        if form is None or x.dtype is not dtype or not x.is_cpu or x.shape[1] != channels:
            missed()
            return steps(x)
        y = torch.addcmul(form[0], x, form[1])
        return y if activation is None else activation.plain(y)

    return run
