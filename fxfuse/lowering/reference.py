"""Kernels in plain torch: what the others are tested against, and what they do with values that they do not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fxfuse.lowering.layer import Layer

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def plain(layer: Layer) -> Callable[..., Tensor]:
    """Return a layer, the sum and the activation as torch's own operations, one after the other."""
    alone = _alone(layer)
    activation = layer.activation

    def run(x: Tensor, *other: Tensor) -> Tensor:
        y = alone(x)
        if other:
            y = y + other[0]
        return y if activation is None else activation.plain(y)

    return run


def _alone(layer: Layer) -> Callable[[Tensor], Tensor]:
    weight, bias = layer.weight, layer.bias
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    if layer.norm is not None:
        return layer.norm
    if layer.kind == "linear":
        return lambda x: F.linear(x, weight, bias)
    if layer.kind == "conv":
        convolve = _CONVOLUTIONS[layer.axes]
        return lambda x: convolve(x, weight, bias, stride, padding, dilation, groups)
    transposed = _TRANSPOSED[layer.axes]
    return lambda x: transposed(x, weight, bias, stride, padding, layer.output_padding, groups, dilation)


class ReferenceEmitter:
    """Runs the plan of any emitter in plain torch, on any device and in any dtype."""

    def obstacle(self, layer: Layer) -> str:
        """Take every layer."""
        del layer
        return ""

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return the steps in plain torch; a sum in place is written where the plan says."""
        del missed
        steps = plain(layer)
        if not layer.in_place:
            return steps

        def run(x: Tensor, other: Tensor) -> Tensor:
            y = steps(x, other)
            return other.copy_(y) if y.shape == other.shape and y.dtype == other.dtype else y

        return run


def channels_last(axes: int) -> torch.memory_format:
    """Return the order in memory that has the channels last, for values of some spatial axes."""
    return torch.channels_last_3d if axes == 3 else torch.channels_last
