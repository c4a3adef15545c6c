"""Convolutions and linear layers as what they compute: sums and chains of them are such filters again."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.algebra.affine import numbers
from fxfuse.algebra.geometry import Axis, Geometry, fits, union
from fxfuse.algebra.linear_map import LinearMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fxfuse.algebra.affine import Affine


@dataclass(frozen=True)
class Shape:
    """What a filter will be, before it is computed.

    Attributes:
        groups: the number of groups of channels that do not mix.
        out_channels: the channels of the output.
        in_channels: the channels of the input.
        geometry: the spatial axes.
        shifted: it adds a bias.
    """

    groups: int
    out_channels: int
    in_channels: int
    geometry: Geometry
    shifted: bool = False

    @property
    def weights(self) -> int:
        """The elements of the kernel: the multiply-adds of one position of the output."""
        return self.out_channels * self.in_channels // self.groups * math.prod(self.geometry.taps)

    def zeros(self, device: torch.device) -> Tensor:
        """Return a kernel of this shape, in float64."""
        sizes = (self.groups, self.out_channels // self.groups, self.in_channels // self.groups)
        return torch.zeros(*sizes, *self.geometry.taps, dtype=torch.float64, device=device)


@dataclass(frozen=True, eq=False)
class Filter:
    """A linear map of channels and taps, with where the taps lie.

    Attributes:
        linear_map: the kernel, in groups, and the bias.
        geometry: the spatial axes; none for a linear layer.
    """

    linear_map: LinearMap
    geometry: Geometry

    @staticmethod
    def diagonal(vector: Affine, spatial: int) -> Filter:
        """Return ``scale * x + shift`` as a filter: one tap, and as many groups as channels.

        Args:
            vector: two vectors, an element for each channel.
            spatial: the number of spatial axes.
        """
        kernel = vector.scale.reshape(-1, 1, 1, *[1] * spatial)
        return Filter(LinearMap(kernel, vector.shift if vector.shifts else None), Geometry((Axis(),) * spatial))

    @staticmethod
    def average(channels: int, geometry: Geometry, divisor: int) -> Filter:
        """Return an average pool: each channel by itself, all taps ``1 / divisor``."""
        [tap] = numbers(1 / divisor)
        return Filter(LinearMap(tap.expand(channels, 1, 1, *geometry.taps), None), geometry)

    @property
    def shape(self) -> Shape:
        """What it is, without its numbers."""
        one = self.linear_map
        return Shape(one.stored.shape[0], one.out_channels, one.in_channels, self.geometry, one.bias is not None)

    def scaled(self, vector: Affine) -> Filter:
        """Return the filter ``x -> scale * self(x) + shift``."""
        device = self.linear_map.stored.device
        return Filter(self.linear_map.then_affine(vector.rearrange(lambda t: t.to(device))), self.geometry)

    def regrouped(self, groups: int) -> Tensor:
        """Return the kernel, in float64, for fewer groups, each of which holds several of these on its diagonal."""
        kernel = self.linear_map.kernel
        before, out, inputs, *taps = kernel.shape
        ratio = before // groups
        if ratio == 1:
            return kernel.double()
        whole = kernel.new_zeros(groups, ratio * out, ratio * inputs, *taps, dtype=torch.float64)
        _add_groups(whole, kernel)
        return whole


def shape_of_sum(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of the sum of filters of one input.

    Raises:
        Misfit: if their channels differ, or their taps do not align.
    """
    first = shapes[0]
    for other in shapes:
        sizes = [(f.in_channels, f.out_channels) for f in (first, other)]
        detail = f"{sizes[0][0]} to {sizes[0][1]} channels and {sizes[1][0]} to {sizes[1][1]}"
        fits(sizes[0] == sizes[1], detail)
    groups, shifted = math.gcd(*(f.groups for f in shapes)), any(f.shifted for f in shapes)
    return Shape(groups, first.out_channels, first.in_channels, union([f.geometry for f in shapes]), shifted)


def sum_of(filters: Sequence[Filter]) -> Filter:
    """Return the filter ``x -> sum of f(x)``.

    Example:
        >>> from fxfuse.algebra.affine import Affine
        >>> two = Affine(torch.tensor([2.0]), torch.tensor([1.0]))
        >>> sum_of([Filter.diagonal(two, 0), Filter.diagonal(two, 0)]).linear_map.kernel
        tensor([[[4.]]], dtype=torch.float64)

    Raises:
        Misfit: if their channels differ, or their taps do not align.
    """
    shape = shape_of_sum([f.shape for f in filters])
    kernel = shape.zeros(_device(filters))
    for one in filters:
        # sum of K_f x = (sum of K_f) x, tap by tap
        _add_groups(at(kernel, shape.geometry.windows(one.geometry)), one.linear_map.kernel)
    biases = [f.linear_map.bias for f in filters if f.linear_map.bias is not None]
    bias = functools.reduce(torch.add, (b.double().to(kernel.device) for b in biases)) if biases else None
    return Filter(LinearMap(kernel, bias), shape.geometry)


def shape_of_chain(first: Shape, second: Shape) -> Shape:
    """Return the shape of ``second(first(x))``.

    Raises:
        Misfit: if that is no single filter at the border.
    """
    detail = f"{first.out_channels} channels before and {second.in_channels} behind"
    fits(first.out_channels == second.in_channels, detail)
    geometry = first.geometry.then(second.geometry, shifted=first.shifted)
    groups, shifted = math.gcd(first.groups, second.groups), first.shifted or second.shifted
    return Shape(groups, second.out_channels, first.in_channels, geometry, shifted)


def chain_of(first: Filter, second: Filter) -> Filter:
    """Return the filter ``x -> second(first(x))``.

    Raises:
        Misfit: if that is no single filter at the border.
    """
    shape = shape_of_chain(first.shape, second.shape)
    before, behind = first.regrouped(shape.groups), second.regrouped(shape.groups)
    before = before.to(behind.device)
    kernel = shape.zeros(behind.device)
    for taps in itertools.product(*(range(size) for size in second.geometry.taps)):
        # K2 (K1 x) = (K2 K1) x: each tap of the second moves all taps of the first
        window = at(kernel, _moved(first.geometry, second.geometry, shape.geometry, taps))
        window += torch.einsum("gom,gmi...->goi...", at(behind, taps), before)
    bias = second.linear_map.bias
    if first.linear_map.bias is not None:
        # K2 b1 + b2, with all taps of K2 added
        summed = behind.reshape(*behind.shape[:3], -1).sum(-1)
        shift = first.linear_map.bias.double().to(behind.device).reshape(shape.groups, -1)
        moved = torch.einsum("gom,gm->go", summed, shift).flatten()
        bias = moved if bias is None else moved + bias
    return Filter(LinearMap(kernel, bias), shape.geometry)


def shape_of_stack(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of filters of one input with their outputs behind one another.

    Raises:
        Misfit: if they read other inputs, or their taps do not align.
    """
    inputs = {f.in_channels for f in shapes}
    fits(len(inputs) == 1, f"{' and '.join(map(str, sorted(inputs)))} channels of the input")
    total, shifted = sum(f.out_channels for f in shapes), any(f.shifted for f in shapes)
    return Shape(1, total, inputs.pop(), union([f.geometry for f in shapes]), shifted)


def stack_of(filters: Sequence[Filter]) -> Filter:
    """Return the filter ``x -> cat of f(x)`` along the channels.

    Raises:
        Misfit: if they read other inputs, or their taps do not align.
    """
    shape = shape_of_stack([f.shape for f in filters])
    kernel, start = shape.zeros(_device(filters)), 0
    for one in filters:
        rows = kernel.narrow(1, start, one.linear_map.out_channels)
        _add_groups(at(rows, shape.geometry.windows(one.geometry)), one.linear_map.kernel)
        start += one.linear_map.out_channels
    biases = [f.linear_map.bias for f in filters]
    if all(bias is None for bias in biases):
        return Filter(LinearMap(kernel, None), shape.geometry)
    pairs = zip(biases, filters, strict=True)
    full = [
        kernel.new_zeros(f.linear_map.out_channels) if b is None else b.double().to(kernel.device) for b, f in pairs
    ]
    return Filter(LinearMap(kernel, torch.cat(full)), shape.geometry)


def at(kernel: Tensor, taps: Sequence[int | slice]) -> Tensor:
    """Return a view of some of the taps of a kernel."""
    index: Any = (..., *taps)
    return kernel[index]


def _moved(first: Geometry, second: Geometry, whole: Geometry, taps: Sequence[int]) -> tuple[slice, ...]:
    """Return where the taps of the first filter come to lie for one tap of the second."""
    found = []
    for one, two, both, tap in zip(first.axes, second.axes, whole.axes, taps, strict=True):
        start, step = tap * two.dilation * one.stride // both.dilation, max(1, one.dilation // both.dilation)
        found.append(slice(start, start + step * (one.taps - 1) + 1, step))
    return tuple(found)


def _add_groups(whole: Tensor, kernel: Tensor) -> None:
    """Add a kernel of more groups to one of fewer, in place: each group where its channels are."""
    ratio = kernel.shape[0] // whole.shape[0]
    _, out, inputs, *_ = kernel.shape
    # The groups that share one of the fewer stand on its diagonal: (groups, out, in, *taps, ratio).
    blocks = whole.unflatten(2, (ratio, inputs)).unflatten(1, (ratio, out)).diagonal(dim1=1, dim2=3)
    blocks += kernel.unflatten(0, (-1, ratio)).movedim(1, -1).to(whole.device)


def _device(filters: Sequence[Filter]) -> torch.device:
    """Return where the weights are; constants that fxfuse made are on the CPU, and do not count."""
    return max((f.linear_map.stored for f in filters), key=lambda t: (t.device.type != "cpu", t.numel())).device
