"""Kernels for CUDA: cuDNN's fused convolutions where they apply, else a convolution and one pass behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxfuse.lowering.activations import RELU
from fxfuse.lowering.cpu import Packed
from fxfuse.lowering.layer import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.lowering.layer import Layer


class GpuEmitter:
    """Makes kernels for CUDA."""

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        if not layer.weight.is_cuda:
            return "it is on another device"
        if layer.kind != "conv" or layer.axes not in (2, 3):
            return "on a GPU only convolutions along two and three axes have kernels"
        if layer.weight.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f"there are no fused kernels of {layer.weight.dtype}"
        mixed = layer.bias is not None and layer.bias.dtype != layer.weight.dtype
        return "its weight and bias have different dtypes" if mixed else ""

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return a kernel; ``missed`` is told where torch's own operations run in its place."""
        steps, dtype, form, dim = plain(layer), layer.weight.dtype, layer.memory_format, layer.axes + 2
        packed = Packed(lambda _: layer.weight.detach().contiguous(memory_format=form))
        numbers = (layer.stride, layer.padding, layer.dilation, layer.groups)
        convolve, behind, whole = F.conv2d if layer.axes == 2 else F.conv3d, _behind(layer), _cudnn(layer)

        def fits(x: Any) -> bool:
            return isinstance(x, Tensor) and x.is_cuda and x.dtype is dtype and x.dim() == dim and x.numel() > 0

        def run(x: Tensor, *other: Tensor) -> Tensor:
            nonlocal whole
            if not fits(x) or not all(map(fits, other)):
                missed()
                return steps(x, *other)
            if other and other[0].shape != layer.shape_of_result(x.shape):
                return steps(x, *other)
            x, *rest = (value.contiguous(memory_format=form) for value in (x, *other))
            weight = packed.get(None)
            if whole is not None:
                try:
                    return whole(x, weight, *rest)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # unable to find an engine
                    whole = None
            return behind(convolve(x, weight, None, *numbers), *rest)

        return run


def _cudnn(layer: Layer) -> Callable[..., Tensor] | None:
    """Return cuDNN's graph of convolution, sum, bias and ReLU, None where there is none."""
    if layer.activation is not RELU or layer.groups == layer.weight.shape[0] > 1:
        return None
    bias, numbers = layer.bias, (layer.stride, layer.padding, layer.dilation, layer.groups)

    def run(x: Tensor, weight: Tensor, *other: Tensor) -> Tensor:
        if other:
            return torch.cudnn_convolution_add_relu(x, weight, other[0], 1.0, bias, *numbers)
        return torch.cudnn_convolution_relu(x, weight, bias, *numbers)

    return run


def _behind(layer: Layer) -> Callable[..., Tensor]:
    """Return what adds the bias and the other value, and applies the activation, in place."""
    activation, bias = layer.activation, layer.bias
    try:
        epilogue: Any = importlib.import_module("fxfuse.lowering.epilogue")
    except ImportError:  # a build of torch without Triton
        epilogue = None
    known = activation is None or (epilogue is not None and activation.name in epilogue.KNOWN)
    known = known and (activation is None or activation.algorithm in ("", "none"))

    def run(y: Tensor, *other: Tensor) -> Tensor:
        if bias is None and not other and activation is None:
            return y
        if epilogue is not None and known and y.is_contiguous(memory_format=layer.memory_format):
            return epilogue.finish(y, bias, *(other or (None,)), activation)
        y = y if bias is None else y.add_(bias.view(-1, *[1] * layer.axes))
        y = y.add_(other[0]) if other else y
        return y if activation is None else activation.plain(y)

    return run
