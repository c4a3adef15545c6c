"""A layer, with what its kernel takes in: all that an emitter needs to know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
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
        padding: zeros on either side.
        dilation: the step of the taps.
        output_padding: of a transposed convolution.
        groups: the groups of a convolution.
        activation: what is computed behind the layer and the sum.
        sums: the kernel takes a second value, and adds it before the activation.
        in_place: the sum may be written into that second value, which nobody reads afterwards.
        norm: the norm itself, for values that no kernel takes.
        ranks: the numbers of axes that the norm takes.
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

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    @property
    def out_channels(self) -> int:
        """The channels of the result."""
        return int(self.weight.shape[1]) * self.groups if self.kind == "transposed" else int(self.weight.shape[0])

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a linear layer at each position."""
        one = self.kind == "conv" and self.groups == 1 and all(size == 1 for size in self.weight.shape[2:])
        return one and not any(self.padding)

    def as_image(self) -> Layer:
        """Return a layer along one axis as the same along two, of which the first has size one."""
        assert self.axes == 1, "a layer along one axis"  # noqa: S101 - a private step of the emitters
        return replace(
            self,
            weight=self.weight.unsqueeze(2),
            stride=(1, *self.stride),
            padding=(0, *self.padding),
            dilation=(1, *self.dilation),
            output_padding=(0, *self.output_padding) if self.output_padding else (),
        )

    def shape_of_result(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape of what a convolution makes of a value of some shape."""
        spatial = (
            (size + 2 * pad - step * (taps - 1) - 1) // stride + 1
            for size, taps, stride, pad, step in zip(
                shape[2:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return (shape[0], self.out_channels, *spatial)
