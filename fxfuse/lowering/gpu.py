"""Kernels for CUDA: cuDNN's fused convolutions where they apply, else a convolution and one pass behind it."""

from __future__ import annotations

import importlib
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

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class GpuEmitter:
    """Makes kernels for CUDA."""

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        if layer.kind != "conv" or layer.axes not in (2, 3):
            return "on a GPU only convolutions along two and three axes have kernels"
        if layer.weight.dtype not in _DTYPES:
            return f"there are no fused kernels of {layer.weight.dtype}"
        mixed = layer.bias is not None and layer.bias.dtype != layer.weight.dtype
        return "its weight and bias have different dtypes" if mixed else ""

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return a kernel; ``missed`` is told where torch's own operations run in its place."""
        return _Convolution(layer, missed).run


class _Convolution:
    """A convolution with what follows it."""

    def __init__(self, layer: Layer, missed: Callable[[], None]) -> None:
        self.layer, self.missed, self.plain = layer, missed, plain(layer)
        self.format, self.lock = channels_last(layer.axes), threading.Lock()
        self.weight: Tensor | None = None
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.numbers = (layer.stride, layer.padding, layer.dilation, layer.groups)
        depthwise = layer.groups > 1 and layer.groups == layer.weight.shape[0]
        # cuDNN's graph of convolution, sum, bias and ReLU; None where it does not apply.
        self.cudnn = self._cudnn if layer.activation is RELU and not depthwise else None

    def run(self, x: Tensor, *other: Tensor) -> Tensor:
        """Return the convolution with the sum and the activation."""
        if not all(map(self.fits, (x, *other))):
            self.missed()
            return self.plain(x, *other)
        if other and other[0].shape != self.layer.shape_of_result(x.shape):
            return self.plain(x, *other)
        x, *rest = (value.contiguous(memory_format=self.format) for value in (x, *other))
        weight = self.packed()
        if self.cudnn is not None:
            try:
                return self.cudnn(x, weight, *rest)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # unable to find an engine
                self.cudnn = None
        return self.behind(self.convolve(x, weight), *rest)

    def fits(self, x: Any) -> bool:
        """Whether a value is one that the kernel takes."""
        layer = self.layer
        fitting = isinstance(x, Tensor) and x.is_cuda and x.dtype is layer.weight.dtype
        return fitting and x.dim() == layer.axes + 2 and x.numel() > 0

    def packed(self) -> Tensor:
        """Return the weight with its channels last, made on first use."""
        with self.lock:
            if self.weight is None:
                with torch.inference_mode(mode=False), torch.no_grad():
                    self.weight = self.layer.weight.detach().contiguous(memory_format=self.format)
            return self.weight

    def _cudnn(self, x: Tensor, weight: Tensor, *other: Tensor) -> Tensor:
        if other:
            return torch.cudnn_convolution_add_relu(x, weight, other[0], 1.0, self.bias, *self.numbers)
        return torch.cudnn_convolution_relu(x, weight, self.bias, *self.numbers)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the bare convolution."""
        convolve = F.conv2d if self.layer.axes == 2 else F.conv3d
        return convolve(x, weight, None, *self.numbers)

    def behind(self, y: Tensor, *other: Tensor) -> Tensor:
        """Add the bias and the other value, and apply the activation, in place."""
        activation, bias = self.layer.activation, self.bias
        if bias is None and not other and activation is None:
            return y
        finish = _triton(None if activation is None else activation.name + activation.algorithm.replace("none", ""))
        if finish is not None and y.is_contiguous(memory_format=self.format):
            return finish(y, bias, *(other or (None,)), activation)
        y = y if bias is None else y.add_(bias.view(-1, *[1] * self.layer.axes))
        y = y.add_(other[0]) if other else y
        return y if activation is None else activation.plain(y)


def _triton(activation: str | None) -> Callable[..., Tensor] | None:
    """Return the kernel for what follows a convolution, None where there is none."""
    try:
        epilogue = importlib.import_module("fxfuse.lowering.epilogue")
    except ImportError:  # a build of torch without Triton
        return None
    known = activation is None or activation in epilogue.KNOWN
    return epilogue.finish if known else None  # type: ignore[no-any-return]
