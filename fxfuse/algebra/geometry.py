"""Where the taps of a convolution lie, and when two convolutions are one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class Misfit(Exception):  # noqa: N818 - an answer, not an error: the rules make a refusal of it
    """Two filters that are no single filter, and why not.  Private."""


def fits(condition: bool, detail: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise unless ``condition`` holds.

    Raises:
        Misfit: with the detail.
    """
    if not condition:
        raise Misfit(detail)


@dataclass(frozen=True)
class Axis:
    """One spatial axis: output ``i`` reads the inputs ``i * stride - before + tap * dilation``.

    Attributes:
        taps: the size of the kernel.
        stride: the step of the output, in inputs.
        dilation: the step of the taps, in inputs.
        before: how many inputs are padded in front.
        after: how many inputs are padded behind.
    """

    taps: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def span(self) -> int:
        """The distance from the first tap to the last, in inputs."""
        return self.dilation * (self.taps - 1)

    @property
    def margin(self) -> int:
        """What the padding leaves over for outputs: two axes of one stride and margin give equally many."""
        return self.before + self.after - self.span

    @property
    def padded(self) -> bool:
        """Whether inputs are read that are not there."""
        return self.before > 0 or self.after > 0

    def then(self, second: Axis) -> Axis:
        """Return the axis of ``second(self(x))``.

        ``second`` reads its input at ``j = i * s2 - b2 + k2 * d2``, which reads ``x`` at ``j * s1 - b1 + k1 * d1``.
        """
        steps = (self.dilation, self.taps), (self.stride * second.dilation, second.taps)
        step = math.gcd(*(d for d, taps in steps if taps > 1)) or 1
        span = self.span + self.stride * second.span
        before, after = (p + self.stride * q for p, q in ((self.before, second.before), (self.after, second.after)))
        return Axis(span // step + 1, self.stride * second.stride, step, before, after)


@dataclass(frozen=True)
class Geometry:
    """The spatial axes of a convolution; a linear layer has none.

    Attributes:
        axes: one after the other.
        mode: what is read beyond the border: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        fixed: what else matters, where only equals go together: the arguments of a transposed convolution.
    """

    axes: tuple[Axis, ...] = ()
    mode: str = "zeros"
    fixed: Hashable = None

    @property
    def taps(self) -> tuple[int, ...]:
        """The size of the kernel."""
        return tuple(axis.taps for axis in self.axes)

    @property
    def padded(self) -> bool:
        """Whether inputs are read that are not there."""
        return any(axis.padded for axis in self.axes)

    @property
    def pointwise(self) -> bool:
        """Whether each output reads one input of its own."""
        return self.fixed is None and all(axis == Axis() for axis in self.axes)

    @property
    def steps(self) -> int:
        """How many positions of the input there are for one of the output."""
        return math.prod(axis.stride for axis in self.axes)

    def windows(self, inner: Geometry) -> tuple[slice, ...]:
        """Return which of the taps are those of ``inner``, of which this is a union."""
        starts = ((a.before - b.before) // a.dilation for a, b in zip(self.axes, inner.axes, strict=True))
        return tuple(slice(start, start + axis.taps) for start, axis in zip(starts, inner.axes, strict=True))

    def then(self, second: Geometry, *, shifted: bool) -> Geometry:
        """Return the geometry of one convolution after another, where that is exact at the border too.

        Args:
            second: the one that reads the result of this one.
            shifted: whether this one adds a bias, which padded zeros of the second do not have.

        Raises:
            Misfit: if the second one reads a border of the first, which a single convolution has not.
        """
        fits(len(self.axes) == len(second.axes), "they have different numbers of axes")
        if second.pointwise:
            return self
        if self.pointwise and second.fixed is not None and not shifted:
            return second
        fits(self.fixed is None and second.fixed is None, "one of them is a transposed convolution")
        if second.padded:
            fits(second.mode != "zeros" or not shifted, "the second pads zeros, which the bias of the first is not in")
            # One tap reads beyond the border of its input where the next one reads beyond the border of its result.
            single = all(a.taps == 1 or not b.padded for a, b in zip(self.axes, second.axes, strict=True))
            same = self.pointwise if second.mode != "zeros" else self.mode == "zeros" or not self.padded
            fits(single and same, "the second pads what the first gives")
        mode = second.mode if second.padded else self.mode
        return Geometry(tuple(a.then(b) for a, b in zip(self.axes, second.axes, strict=True)), mode)


def union(geometries: Sequence[Geometry]) -> Geometry:
    """Return the geometry with the taps of all.

    Raises:
        Misfit: if they differ in more than how far they reach.
    """
    first, *others = dict.fromkeys(geometries)
    if not others:
        return first
    every = [first, *others]
    fits(all(g.fixed is None for g in every), "transposed convolutions with different arguments")
    modes = dict.fromkeys(g.mode for g in every if g.padded)
    fits(len(modes) <= 1, f"padding modes {' and '.join(modes)}")
    fits(len({len(g.axes) for g in every}) == 1, "different numbers of axes")
    axes = zip(*(g.axes for g in every), strict=True)
    return Geometry(tuple(_union(together) for together in axes), next(iter(modes), "zeros"))


def _union(axes: Sequence[Axis]) -> Axis:
    first = axes[0]
    for axis in axes:
        fits(axis.stride == first.stride, f"strides {first.stride} and {axis.stride}")
        detail = f"a kernel of {first.taps} with padding {first.before} and one of {axis.taps} with {axis.before}"
        fits(axis.margin == first.margin, detail)
    steps = dict.fromkeys(axis.dilation for axis in axes if axis.taps > 1)
    fits(len(steps) <= 1, f"dilations {' and '.join(map(str, steps))}")
    step, before = next(iter(steps), 1), max(axis.before for axis in axes)
    between = all((before - axis.before) % step == 0 for axis in axes)
    fits(between, f"taps that lie between those of dilation {step}")
    end = max(axis.span - axis.before for axis in axes)  # the last input that output 0 reads
    taps = (end + before) // step + 1
    widest = Axis(taps, first.stride, step if taps > 1 else 1, before)
    return replace(widest, after=first.margin + widest.span - before)
