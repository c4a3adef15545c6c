"""An affine of a value is told how the value's axes change: by one more, by one less, by more elements along one."""

from __future__ import annotations

import pytest
import torch

from fxfuse.algebra.affine import Affine
from tests.support.helpers import assert_equal
from tests.support.samples import randn


def affine(*shape: int) -> Affine:
    return Affine(randn(*shape), randn(*shape, seed=1))


@pytest.mark.parametrize(
    ("scale", "shift", "rank"),
    [((1, 1, 3, 1), (1, 3, 1), 2), ((1,), (1, 2), 1), ((2, 1), (), 2), ((1, 1), (1,), 0), ((), (), 0)],
)
def test_trimmed_has_no_leading_axes_of_size_one(scale: tuple[int, ...], shift: tuple[int, ...], rank: int) -> None:
    one = Affine(randn(*scale), randn(*shift, seed=1))
    x = randn(2, 1, 1, 1)
    assert one.trimmed().scale.ndim == one.trimmed().shift.ndim == rank
    assert_equal(one.trimmed()(x), one(x))


def test_size_is_that_of_the_wider_tensor() -> None:
    one = Affine(randn(4, 1), randn(2, 1, 5))
    assert [one.size(axis) for axis in (-1, -2, -3, -4)] == [5, 4, 2, 1]


def test_collapsed_keeps_one_element_where_nothing_varies() -> None:
    row = affine(1, 1, 5)
    wide = row.rearrange(lambda t: t.expand(1, 3, 5))
    assert wide.collapsed((1,)).scale.shape == wide.collapsed((1,)).shift.shape == (1, 1, 5)
    assert wide.collapsed((0, 1, 2)).scale.shape == (1, 1, 5)
    assert_equal(wide.collapsed((0, 1, 2))(randn(2, 3, 5)), row(randn(2, 3, 5)))
    both = affine(1, 1, 1).rearrange(lambda t: t.expand(2, 3, 5))
    assert both.collapsed((0, 2)).scale.shape == (1, 3, 1)


def test_collapsed_keeps_what_varies_in_one_of_the_tensors() -> None:
    one = Affine(torch.ones(2, 3).double(), randn(2, 3))
    assert one.collapsed((0, 1)).scale.shape == one.collapsed((0, 1)).shift.shape == (2, 3)
    other = Affine(randn(2, 3), torch.ones(2, 1).double())
    assert (other.collapsed((1,)).scale.shape, other.collapsed((1,)).shift.shape) == ((2, 3), (2, 1))


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_one_more_axis_and_back(shape: tuple[int, ...], axis: int) -> None:
    one, x = affine(*shape), randn(2, 3, 4)
    wider = one.with_axis(axis)
    assert wider.rank == max(len(shape), -axis - 1) + 1
    assert_equal(wider(x.unsqueeze(axis)), one(x).unsqueeze(axis))
    assert_equal(wider.without_axis(axis)(x), one(x))
    assert wider.without_axis(axis).rank == wider.rank - 1


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_an_axis_that_the_affine_does_not_reach_is_taken_out(axis: int) -> None:
    one = affine()
    assert one.without_axis(axis).rank == -axis - 1
    assert_equal(one.without_axis(axis)(randn(2, 3)), one(randn(2, 3)))


@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (), (2, 1, 4), (3, 4)])
def test_within_a_larger_value_the_rest_stays_as_it_is(shape: tuple[int, ...]) -> None:
    one, x = affine(*shape), randn(2, 6, 4)
    expected = torch.cat([x[:, :1], one(x[:, 1:4]), x[:, 4:]], 1)
    assert_equal(one.within(-2, 1, 3, 6)(x), expected)
    assert one.within(-2, 1, 3, 6).size(-2) == 6
