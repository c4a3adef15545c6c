"""One set of formulas, against torch's own convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fxfuse.algebra import linear_map
from fxfuse.algebra.affine import Affine
from fxfuse.algebra.linear_map import LinearMap
from tests.support.helpers import assert_equal
from tests.support.samples import SETTINGS, randn

if TYPE_CHECKING:
    from torch import Tensor

CONVOLUTIONS: dict[tuple[int, bool], Any] = {
    (1, False): F.conv1d,
    (2, False): F.conv2d,
    (3, False): F.conv3d,
    (1, True): F.conv_transpose1d,
    (2, True): F.conv_transpose2d,
    (3, True): F.conv_transpose3d,
}


@dataclass(frozen=True, repr=False)
class Case:
    """A linear operation of torch, and the map that stands for its weights."""

    linear_map: LinearMap
    dims: int
    transposed: bool
    stride: int
    padding: int
    dilation: int
    x: Tensor

    def __repr__(self) -> str:
        facts = (tuple(self.linear_map.kernel.shape), self.transposed, self.stride, self.padding, self.dilation)
        return f"Case{facts}"

    def call(self, linear_map: LinearMap, x: Tensor) -> Tensor:
        """Torch's own operation, with the weights of a map."""
        kernel, bias = linear_map.kernel, linear_map.bias
        if not self.dims:
            return F.linear(x, kernel[0], bias)
        weight = kernel.transpose(1, 2).flatten(0, 1) if self.transposed else kernel.flatten(0, 1)
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return CONVOLUTIONS[self.dims, self.transposed](x, weight, bias, groups=len(kernel), **options)

    def along(self, affine: Affine) -> Affine:
        """The affine, shaped for the values of this operation."""
        return affine.rearrange(lambda t: t.reshape(-1, *[1] * self.dims))


@st.composite
def cases(draw: st.DrawFn, *, zeros: bool) -> Case:
    """Any operation; without ``zeros``, one of which every output sees every tap."""
    dims, transposed = draw(st.integers(0, 3)), draw(st.booleans())
    groups, out, inputs = draw(st.integers(1, 3)) if dims else 1, draw(st.integers(1, 3)), draw(st.integers(1, 3))
    taps = [draw(st.integers(1, 3)) for _ in range(dims)]
    stride, dilation, padding = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
    if not zeros and transposed:
        # Cut off all outputs near the border, and the gaps that a stride makes.
        taps, stride = taps[:1] * dims, 1
        padding = dilation * (taps[0] - 1) if dims else 0
    elif not zeros:
        padding = 0
    if transposed and zeros:
        padding = 0
    x = randn(2, groups * inputs, *[6] * dims, seed=draw(st.integers(0, 9)))
    bias = randn(groups * out, seed=1) if draw(st.booleans()) else None
    return Case(
        LinearMap(randn(groups, out, inputs, *taps, seed=2), bias), dims, transposed, stride, padding, dilation, x
    )


def affine(channels: int) -> Affine:
    return Affine(randn(channels, seed=3), randn(channels, seed=4))


@SETTINGS
@given(cases(zeros=True))
def test_then_affine(case: Case) -> None:
    after = affine(case.linear_map.out_channels)
    expected = case.along(after)(case.call(case.linear_map, case.x))
    assert_equal(expected, case.call(case.linear_map.then_affine(after), case.x))


@SETTINGS
@given(cases(zeros=False))
def test_after_affine_where_no_zeros_are_read(case: Case) -> None:
    before = affine(case.linear_map.in_channels)
    expected = case.call(case.linear_map, case.along(before)(case.x))
    assert_equal(expected, case.call(case.linear_map.after_affine(before), case.x))


@SETTINGS
@given(cases(zeros=True))
def test_a_scale_passes_padded_zeros(case: Case) -> None:
    scale = randn(case.linear_map.in_channels, seed=3)
    before = Affine(scale, 0 * scale)
    expected = case.call(case.linear_map, case.along(before)(case.x))
    assert_equal(expected, case.call(case.linear_map.after_affine(before), case.x))


@SETTINGS
@given(cases(zeros=False))
def test_both_sides_at_once(case: Case) -> None:
    before, after = affine(case.linear_map.in_channels), affine(case.linear_map.out_channels)
    expected = case.along(after)(case.call(case.linear_map, case.along(before)(case.x)))
    assert_equal(expected, case.call(case.linear_map.after_affine(before).then_affine(after), case.x))


@pytest.mark.parametrize("bias", [True, False])
def test_channels_are_counted_over_all_groups(bias: bool) -> None:
    linear_map = LinearMap(randn(2, 3, 5, 1), randn(6) if bias else None)
    assert (linear_map.out_channels, linear_map.in_channels) == (6, 10)
    assert linear_map.then_affine(affine(6)).bias is not None


def test_half_precision_is_widened_before_the_arithmetic() -> None:
    half = LinearMap(randn(1, 2, 3, 3).half(), randn(2).half())
    wide = LinearMap(half.kernel.double(), half.bias.double() if half.bias is not None else None)
    for mine, exact in (
        (half.then_affine(affine(2)), wide.then_affine(affine(2))),
        (half.after_affine(affine(3)), wide.after_affine(affine(3))),
    ):
        assert_equal(exact.kernel, mine.kernel, rtol=0.0)
        assert_equal(exact.bias, mine.bias, rtol=0.0)


def test_a_large_kernel_is_read_block_by_block() -> None:
    kernel, before = randn(1, 700, 900), affine(900)  # more than fits into one block
    found = LinearMap(kernel, None).then_affine(affine(700)).after_affine(before)
    scaled = kernel * affine(700).scale.reshape(1, 700, 1)
    assert_equal((scaled[0] @ before.shift) + affine(700).shift, found.bias)
    assert_equal(scaled * before.scale, found.kernel)


def test_a_scale_alone_makes_no_bias() -> None:
    plain, ones = LinearMap(randn(1, 2, 3), None), affine(2)
    assert plain.then_affine(Affine(ones.scale, 0 * ones.shift, shifts=False)).bias is None
    assert plain.after_affine(Affine(affine(3).scale, 0 * affine(3).shift, shifts=False)).bias is None


def test_a_shift_that_is_zero_by_chance_makes_a_bias() -> None:
    plain, zero = LinearMap(randn(1, 2, 2), None), Affine(affine(2).scale, 0 * affine(2).shift)
    for made in (plain.then_affine(zero), plain.after_affine(zero)):
        assert made.bias is not None
        assert not made.bias.any()


SPLIT = {
    "as it is stored": lambda t: t,
    "transposed": lambda t: t.transpose(1, 2),
    "channels last": lambda t: t.to(memory_format=torch.channels_last_3d),
}


@pytest.mark.parametrize("block", [1, 7, 25, 30, 1000])
@pytest.mark.parametrize("layout", SPLIT)
@pytest.mark.parametrize("shape", [(1, 5, 3, 2, 2), (6, 2, 3, 1, 1), (2, 7, 3, 3, 1)])
def test_blocks_give_what_one_operation_gives(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], layout: str, block: int
) -> None:
    monkeypatch.setattr(linear_map, "_BLOCK", block)
    monkeypatch.setattr(linear_map, "_SMALL", 0)
    kernel = SPLIT[layout](randn(*shape).float())
    groups, out, inputs = kernel.shape[:3]
    before, after = (Affine(randn(groups * n), randn(groups * n)) for n in (inputs, out))
    found = LinearMap(kernel, randn(groups * out)).after_affine(before).then_affine(after)
    target = found.rounded(kernel.flatten(0, 1))[0].view(kernel.shape)
    scales = before.scale.view(groups, 1, inputs, 1, 1), after.scale.view(groups, out, 1, 1, 1)
    assert torch.equal(target, (kernel * (scales[0] * scales[1])).float())
    moved = (kernel.double() * before.shift.view(groups, 1, inputs, 1, 1)).sum((2, 3, 4)).flatten()
    plain = LinearMap(kernel, None).after_affine(before).bias
    assert plain is not None
    assert_equal(plain, moved)
