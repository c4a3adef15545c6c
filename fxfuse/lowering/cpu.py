"""Kernels of oneDNN, which ship with torch: convolution, sum and activation at once, with packed weights."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxfuse.lowering.activations import RELU
from fxfuse.lowering.reference import channels_last, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.lowering.layer import Layer

MANY_ROWS = 32
"""From so many rows on a linear layer runs with packed weights; below, reading them takes most of the time."""


def onednn_obstacle(dtype: torch.dtype) -> str:
    """Return why oneDNN has no kernels of a dtype here, empty where it has."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    if dtype == torch.float32:
        return ""
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    if dtype not in supported:
        return f"oneDNN has no kernels of {dtype}"
    return "" if supported[dtype]() else f"this processor has no instructions for {dtype}"


class CpuEmitter:
    """Makes kernels of oneDNN."""

    def __init__(self, *, exact_nan: bool = False) -> None:
        """Remember whether activations have to pass NaN on."""
        self.exact_nan = exact_nan

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        why = onednn_obstacle(layer.weight.dtype)
        mixed = layer.bias is not None and layer.bias.dtype != layer.weight.dtype
        if layer.weight.numel() == 0 or mixed:
            why = why or "its weight and bias have different dtypes, or no elements"
        if layer.kind == "norm" and layer.weight.dtype != torch.float32:
            why = why or "a norm in half precision computes in single"
        if layer.kind != "transposed":
            return why
        if layer.groups > 1 and layer.groups == layer.weight.shape[0]:
            why = why or "a depth-wise transposed convolution"
        if any(more >= stride for more, stride in zip(layer.output_padding, layer.stride, strict=True)):
            why = why or "its output padding is as large as its stride"
        return why

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return a kernel.

        Args:
            layer: what it computes.
            missed: told where a value does not fit, and torch's own operations run in the kernel's place.
        """
        if layer.kind == "norm":
            return _norm(layer, missed)
        if layer.kind == "linear":
            return _linear(layer, missed, self._fused(layer))
        run = _Convolution(layer, missed, self._fused(layer))
        return run.summed if layer.sums else run.alone

    def _fused(self, layer: Layer) -> bool:
        """Whether oneDNN computes the activation; else torch does, in place."""
        activation = layer.activation
        if activation is None or (self.exact_nan and activation.drops_nan):
            return False
        return activation is RELU if layer.sums else True


class _Packed:
    """A packed weight, made on first use, for the size that is seen then."""

    def __init__(self, pack: Callable[[Any], Tensor]) -> None:
        self._pack = pack
        self._lock = threading.Lock()
        self.value: Tensor | None = None

    def get(self, size: Any) -> Tensor:
        """Return the weight."""
        with self._lock:
            if self.value is None:
                # Not for the length of an inference-mode block alone.
                with torch.inference_mode(mode=False), torch.no_grad():
                    self.value = self._pack(size)
            return self.value


class _Convolution:
    """A convolution or transposed convolution with a packed weight."""

    def __init__(self, layer: Layer, missed: Callable[[], None], fused: bool) -> None:  # noqa: FBT001 - private
        self.missed, self.plain = missed, plain(layer)
        self.lines = layer.axes == 1  # a convolution along one axis is one of images of height one
        layer = self.layer = layer.as_image() if self.lines else layer
        activation = layer.activation if fused else None
        self.after = None if fused or layer.activation is None else layer.activation.plain
        self.post = (activation.onednn, list(activation.numbers), activation.algorithm) if activation else ("none", [], "")
        self.packed = _Packed(self._pack)
        self.format = channels_last(layer.axes)
        self.dim, self.dtype = layer.axes + 2 - self.lines, layer.weight.dtype
        self.bias = None if layer.bias is None else layer.bias.detach()
        numbers = [list(layer.padding), list(layer.stride), list(layer.dilation)]
        self.numbers = numbers[:1] + [list(layer.output_padding)] + numbers[1:] if layer.output_padding else numbers
        self.matrix = layer.weight.detach().flatten(1) if layer.is_pointwise else None
        self.result_shape = functools.lru_cache(maxsize=64)(layer.shape_of_result)
        mkldnn = torch.ops.mkldnn
        transposed = layer.kind == "transposed"
        unary = mkldnn._convolution_transpose_pointwise if transposed else mkldnn._convolution_pointwise
        self.unary = unary.default._op
        self.binary, self.binary_ = mkldnn._convolution_pointwise.binary._op, mkldnn._convolution_pointwise_.binary._op

    def _pack(self, size: Any) -> Tensor:
        layer, weight = self.layer, self.layer.weight.detach()
        mkldnn = torch.ops.mkldnn
        transposed = layer.kind == "transposed"
        pack = mkldnn._reorder_convolution_transpose_weight if transposed else mkldnn._reorder_convolution_weight
        return pack(weight, *self.numbers, layer.groups, list(size))

    def fits(self, x: Any) -> bool:
        """Whether a value is one that the kernel takes."""
        return x.dim() == self.dim and x.dtype is self.dtype and x.is_cpu and x.numel() > 0

    def ready(self, x: Tensor) -> Tensor:
        """Return a value as an image with its channels last."""
        x = x.unsqueeze(2) if self.lines else x
        return x if x.is_contiguous(memory_format=self.format) else x.contiguous(memory_format=self.format)

    def alone(self, x: Tensor) -> Tensor:
        """Return the convolution with its activation."""
        if not self.fits(x):
            self.missed()
            return self.plain(x)
        x = self.ready(x)
        if self.matrix is not None and x.shape[2:].numel() == 1:
            y = F.linear(x.flatten(1), self.matrix, self.bias)
            y = y.view(*y.shape, *x.shape[2:])
            y = y if self.layer.activation is None else self.layer.activation.plain(y)
            return y.squeeze(2) if self.lines else y
        weight = self.packed.value
        weight = self.packed.get(x.shape) if weight is None else weight
        y = self.unary(x, weight, self.bias, *self.numbers, self.layer.groups, *self.post)
        y = y if self.after is None else self.after(y)
        return y.squeeze(2) if self.lines else y

    def summed(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the sum of the convolution and another value, with its activation."""
        fitting = isinstance(other, Tensor) and self.fits(x) and self.fits(other)
        if not fitting or self.layer.kind != "conv":
            self.missed_sum(fitting)
            return self.plain(x, other)
        x, z = self.ready(x), other.unsqueeze(2) if self.lines else other
        if z.shape != self.result_shape(x.shape):
            return self.plain(x.squeeze(2) if self.lines else x, other)
        weight = self.packed.value
        weight = self.packed.get(x.shape) if weight is None else weight
        post = ("add", 1.0, self.post[0] if self.post[0] == "relu" else None, [], None)
        if self.layer.in_place and z.is_contiguous(memory_format=self.format):
            y = self.binary_(z, x, weight, self.bias, *self.numbers, self.layer.groups, *post)
        elif self.layer.groups == 1:
            y = self.binary(x, self.ready(other), weight, self.bias, *self.numbers, 1, *post)
        else:
            y = self.unary(x, weight, self.bias, *self.numbers, self.layer.groups, "none", [], "").add_(z)
            y = y if post[2] is None else torch.relu_(y)
        y = y if self.after is None else self.after(y)
        return y.squeeze(2) if self.lines else y

    def missed_sum(self, fitting: bool) -> None:  # noqa: FBT001 - private
        """Tell that torch's own operations run, but where the layer has no kernel for a sum by nature."""
        if not fitting:
            self.missed()


def _linear(layer: Layer, missed: Callable[[], None], fused: bool) -> Callable[..., Tensor]:  # noqa: FBT001 - private
    """Return a linear layer, with a packed weight for many rows."""
    steps, activation = plain(layer), layer.activation
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    packed = _Packed(lambda rows: torch.ops.mkldnn._reorder_linear_weight(weight, rows))
    op, dtype, features = torch.ops.mkldnn._linear_pointwise.default._op, weight.dtype, weight.shape[1]
    taken = activation if fused and not layer.sums else None
    post = (taken.onednn, list(taken.numbers), taken.algorithm) if taken is not None else ("none", [], "")
    after = None if taken is not None or activation is None else activation.plain

    def run(x: Tensor, *other: Tensor) -> Tensor:
        if x.dtype is not dtype or not x.is_cpu or not all(isinstance(z, Tensor) and z.dtype is dtype for z in other):
            missed()
            return steps(x, *other)
        rows = x.numel() // features
        if rows < MANY_ROWS or x.dim() < 2 or x.shape[-1] != features:
            y = F.linear(x, weight, bias)
            y = y if not other else y.add_(other[0]) if other[0].shape == y.shape else y + other[0]
            return y if activation is None else activation.plain(y)
        made = packed.value
        y = op(x, packed.get(rows) if made is None else made, bias, *post)
        y = y if not other else y.add_(other[0]) if other[0].shape == y.shape else y + other[0]
        return y if after is None else after(y)

    return run


def _norm(layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
    """Return a norm as one multiplication and addition, with its activation in place."""
    steps, activation, dtype = plain(layer), layer.activation, layer.weight.dtype
    shift = torch.zeros_like(layer.weight) if layer.bias is None else layer.bias
    shapes = {dim: (1, -1, *[1] * (dim - 2)) for dim in layer.ranks}
    forms = {dim: (layer.weight.view(shape), shift.view(shape)) for dim, shape in shapes.items()}

    def run(x: Tensor) -> Tensor:
        form = forms.get(x.dim())
        if form is None or x.dtype is not dtype or not x.is_cpu or x.shape[1] != layer.out_channels:
            missed()
            return steps(x)
        y = torch.addcmul(form[1], x, form[0])
        return y if activation is None else activation.plain(y)

    return run
