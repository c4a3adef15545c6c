"""A layer, with what its kernel takes in: all that an emitter needs to know, and the same in plain torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fxfuse.lowering.activations import Activation


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution, a transposed convolution, a linear layer, or a norm that stayed.

    Attributes:
        kind: which of these.
        path: where the user finds it.
        weight: the weight; of a norm, its scale.
        bias: the bias; of a norm, its shift.
        stride: one number for each spatial axis, as the next three.
        activation: what is computed behind the layer and the sum.
        sums: the kernel takes a second value, and adds it before the activation.
        in_place: the sum may be written into that second value, which nobody reads afterwards.
        norm: the norm itself, for values that no kernel takes.
        ranks: the numbers of axes that the norm takes.
        copied: the tensors of the model of which a kernel has copies; it reads the bias itself.
    """

    kind: Literal["conv", "transposed", "linear", "norm"]
    path: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    activation: Activation | None = None
    sums: bool = False
    in_place: bool = False
    norm: Callable[[Tensor], Tensor] | None = None
    ranks: tuple[int, ...] = ()
    copied: tuple[Tensor, ...] = ()

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    @property
    def memory_format(self) -> torch.memory_format:
        """The order in memory that has the channels last."""
        return torch.channels_last_3d if self.axes == 3 else torch.channels_last

    def as_image(self) -> Layer:
        """Return a layer along one axis as the same along two, of which the first has size one."""
        more = (0, *self.output_padding) if self.output_padding else ()
        numbers = {"stride": (1, *self.stride), "padding": (0, *self.padding), "dilation": (1, *self.dilation)}
        return replace(self, weight=self.weight.unsqueeze(2), output_padding=more, **numbers)  # type: ignore[arg-type]

    def shape_of_result(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape of what a convolution makes of a value of some shape."""
        columns = (shape[2:], self.weight.shape[2:], self.stride, self.padding, self.dilation)
        sizes = ((n + 2 * pad - d * (taps - 1) - 1) // s + 1 for n, taps, s, pad, d in zip(*columns, strict=True))
        return (shape[0], self.weight.shape[0], *sizes)


def plain(layer: Layer) -> Callable[..., Tensor]:
    """Return a layer, the sum and the activation as torch's own operations, one after the other."""
    alone, activation = _alone(layer), layer.activation

    def run(x: Tensor, *other: Tensor) -> Tensor:
        y = alone(x) + other[0] if other else alone(x)
        return y if activation is None else activation.plain(y)

    return run


def _alone(layer: Layer) -> Callable[[Tensor], Tensor]:
    weight, bias = layer.weight, layer.bias
    numbers = (layer.stride, layer.padding)
    if layer.norm is not None:
        return layer.norm
    if layer.kind == "linear":
        return lambda x: F.linear(x, weight, bias)
    if layer.kind == "conv":
        convolve = (F.conv1d, F.conv2d, F.conv3d)[layer.axes - 1]
        return lambda x: convolve(x, weight, bias, *numbers, layer.dilation, layer.groups)
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[layer.axes - 1]
    return lambda x: transposed(x, weight, bias, *numbers, layer.output_padding, layer.groups, layer.dilation)
