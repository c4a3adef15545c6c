"""Sums, chains and stacks of filters give what the convolutions gave, as torch computes them."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from fxfuse.algebra.affine import Affine
from fxfuse.algebra.filters import Filter, chain_of, shape_of_chain, shape_of_stack, shape_of_sum, stack_of, sum_of
from fxfuse.algebra.geometry import Axis, Geometry, Misfit, union
from fxfuse.algebra.linear_map import LinearMap
from tests.support.helpers import assert_equal
from tests.support.samples import SETTINGS, randn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LENGTHS = range(40, 47)  # all remainders of the strides that are drawn


def convolve(one: Filter, x: Tensor) -> Tensor:
    """What torch gives for a filter; padded by hand, so that both sides may differ."""
    kernel, axes = one.linear_map.kernel.double(), one.geometry.axes
    sides = [side for axis in reversed(axes) for side in (axis.before, axis.after)]
    padded = F.pad(x, sides, mode={"zeros": "constant"}.get(one.geometry.mode, one.geometry.mode))
    convolution = (None, F.conv1d, F.conv2d)[len(axes)]
    assert convolution is not None
    stride, dilation = (tuple(getattr(axis, name) for axis in axes) for name in ("stride", "dilation"))
    return convolution(padded, kernel.flatten(0, 1), one.linear_map.bias, stride, 0, dilation, one.shape.groups)


def assert_gives(merged: Filter, expected: Callable[[Tensor], Tensor]) -> None:
    """A filter gives what was expected, whatever the length of the input."""
    for length in LENGTHS:
        x = randn(2, merged.shape.in_channels, length)
        assert_equal(convolve(merged, x), expected(x))


def make(
    groups: int, out: int, inputs: int, *axes: Axis, mode: str = "zeros", bias: bool = True, seed: int = 0
) -> Filter:
    """A filter with random numbers; the channels are those of all groups together."""
    kernel = randn(groups, out // groups, inputs // groups, *(axis.taps for axis in axes), seed=seed)
    return Filter(LinearMap(kernel, randn(out, seed=seed + 1) if bias else None), Geometry(axes, mode))


@st.composite
def axis_like(draw: st.DrawFn, stride: int, margin: int) -> Axis:
    """An axis that gives as many outputs as others of this stride and margin."""
    taps, dilation = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2]))
    both = margin + dilation * (taps - 1)
    assume(both >= 0)
    before = draw(st.integers(0, both))
    return Axis(taps, stride, dilation, before, both - before)


@st.composite
def branches(draw: st.DrawFn) -> list[Filter]:
    """Filters of one input whose outputs are of one size."""
    stride, margin, mode = (
        draw(st.integers(1, 3)),
        draw(st.integers(-2, 2)),
        draw(st.sampled_from(["zeros", "circular"])),
    )
    count = draw(st.integers(2, 3))
    made = []
    for number in range(count):
        axes = [draw(axis_like(stride, margin))]
        groups = draw(st.sampled_from([1, 2, 3, 6]))
        made.append(make(groups, 6, 6, *axes, mode=mode, bias=draw(st.booleans()), seed=10 * number))
    return made


@given(branches())
@SETTINGS
def test_sum(filters: list[Filter]) -> None:
    """Either they are refused, or the sum is the sum, whatever the length of the input."""
    try:
        shape = shape_of_sum([f.shape for f in filters])
    except Misfit:
        steps = {axis.dilation for f in filters for axis in f.geometry.axes if axis.taps > 1}
        assert steps - {1}, "filters of dilation 1 always align"
        return
    merged = sum_of(filters)
    assert merged.shape == shape
    assert_gives(merged, lambda x: torch.stack([convolve(f, x) for f in filters]).sum(0))


@given(branches())
@SETTINGS
def test_stack(filters: list[Filter]) -> None:
    try:
        shape = shape_of_stack([f.shape for f in filters])
    except Misfit:
        assume(False)
    merged = stack_of(filters)
    assert merged.shape == shape
    assert_gives(merged, lambda x: torch.cat([convolve(f, x) for f in filters], 1))


axes = st.builds(Axis, *(st.integers(1, 3) for _ in range(3)), *(st.integers(0, 2) for _ in range(2)))


@given(axes, axes, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.booleans(), st.data())
@SETTINGS
def test_chain(one: Axis, two: Axis, groups: int, more: int, bias: bool, data: st.DataObject) -> None:
    """Either it is refused for its border, or the chain is the chain, whatever the length of the input."""
    modes = st.sampled_from(["zeros", "zeros", "circular"])
    first = make(groups, 8, 4, one, mode=data.draw(modes), bias=bias)
    second = make(more, 4, 8, two, mode=data.draw(modes), seed=3)
    try:
        shape = shape_of_chain(first.shape, second.shape)
    except Misfit:
        assert two.padded, "only a padded second one can differ at the border"
        return
    merged = chain_of(first, second)
    assert merged.shape == shape
    assert_gives(merged, functools.partial(_chained, first, second))


def _chained(first: Filter, second: Filter, x: Tensor) -> Tensor:
    return convolve(second, convolve(first, x))


def test_every_stride_dilation_and_padding_of_a_pointwise_first() -> None:
    """The 1x1 convolution before a larger one: exact with zeros padded, as long as it adds nothing."""
    for stride, dilation, padding in itertools.product((1, 2, 3), (1, 2), (0, 1, 2)):
        second = make(1, 3, 8, Axis(3, stride, dilation, padding, padding), seed=3)
        for first in (
            make(1, 8, 4, Axis(stride=stride), bias=False),
            make(1, 8, 4, Axis(before=1, after=1), bias=False),
        ):
            assert_gives(chain_of(first, second), functools.partial(_chained, first, second))


def test_a_padded_bias_is_refused() -> None:
    with pytest.raises(Misfit, match="bias"):
        chain_of(make(1, 8, 4, Axis()), make(1, 3, 8, Axis(3, before=1, after=1)))


def test_two_axes_that_reach_apart() -> None:
    """1xK and Kx1 become KxK, and a 1x1 stands in its middle."""
    tall, wide = (Axis(3, before=1, after=1), Axis()), (Axis(), Axis(3, before=1, after=1))
    filters = [make(1, 4, 4, *tall), make(2, 4, 4, *wide, seed=2), make(4, 4, 4, Axis(), Axis(), seed=4)]
    merged, x = sum_of(filters), randn(2, 4, 7, 6)
    assert merged.geometry.taps == (3, 3)
    assert_equal(convolve(merged, x), sum(convolve(f, x) for f in filters))


def test_identity_and_average() -> None:
    geometry = Geometry((Axis(3, before=1, after=1),) * 2)
    average = Filter.average(4, geometry, 9)
    identity = Filter.diagonal(Affine(randn(4), randn(4, seed=1)), 2)
    x = randn(2, 4, 7, 6)
    expected = F.avg_pool2d(x, 3, 1, 1) + x * randn(4).reshape(-1, 1, 1) + randn(4, seed=1).reshape(-1, 1, 1)
    assert_equal(convolve(sum_of([average, identity]), x), expected)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (Axis(3, before=1, after=1), Axis(3), "padding 1"),
        (Axis(3, stride=2), Axis(3), "strides 2 and 1"),
        (Axis(3, before=1, after=1), Axis(3, dilation=2, before=2, after=2), "dilations 1 and 2"),
        (Axis(3, dilation=2, before=2, after=2), Axis(1, before=1, after=0), "padding"),
        (Axis(3, dilation=2, before=2, after=2), Axis(1, before=1, after=-1), "between"),
    ],
)
def test_what_does_not_align(one: Axis, other: Axis, words: str) -> None:
    with pytest.raises(Misfit, match=words):
        union([Geometry((one,)), Geometry((other,))])


def test_padding_modes_differ() -> None:
    padded = Axis(3, before=1, after=1)
    with pytest.raises(Misfit, match="padding modes"):
        union([Geometry((padded,)), Geometry((padded,), "reflect")])
    assert union([Geometry((Axis(),)), Geometry((padded,), "reflect")]).mode == "reflect"


def test_channels_differ() -> None:
    with pytest.raises(Misfit, match="4 to 8 channels and 4 to 4"):
        shape_of_sum([make(1, 8, 4).shape, make(1, 4, 4).shape])
