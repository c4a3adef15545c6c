"""What two filters must have in common to be one, what is said where they have not, and in what numbers it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fxfuse.algebra.affine import Affine
from fxfuse.algebra.filters import Filter, chain_of, shape_of_chain, shape_of_stack, stack_of, sum_of
from fxfuse.algebra.geometry import Axis, Geometry, Misfit, union
from fxfuse.algebra.linear_map import LinearMap
from tests.support.helpers import assert_equal
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Callable

THREE, ONE = Axis(3, before=1, after=1), Axis()


def chained(first: Geometry, second: Geometry, *, shifted: bool = False) -> Geometry:
    return first.then(second, shifted=shifted)


def make(groups: int, out: int, inputs: int, *taps: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Filter:
    kernel = randn(groups, out // groups, inputs // groups, *taps, seed=seed).to(dtype)
    return Filter(LinearMap(kernel, randn(out, seed=seed + 1).to(dtype)), Geometry(tuple(Axis(n) for n in taps)))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: chained(Geometry((ONE,)), Geometry((ONE, ONE))), "different numbers of axes"),
        (lambda: chained(Geometry((THREE,), fixed=1), Geometry((THREE,))), "transposed"),
        (lambda: chained(Geometry((THREE,)), Geometry((THREE,), fixed=1)), "transposed"),
        (lambda: chained(Geometry((ONE,)), Geometry((THREE,), fixed=1), shifted=True), "transposed"),
        (lambda: chained(Geometry((ONE,)), Geometry((THREE,)), shifted=True), "the bias of the first is not in"),
        (lambda: chained(Geometry((Axis(3),)), Geometry((THREE,))), "pads what the first gives"),
        (lambda: chained(Geometry((THREE,), "reflect"), Geometry((Axis(1, 1, 1, 1, 1),))), "pads what the first"),
        (lambda: chained(Geometry((Axis(1, 1, 1, 1, 1),)), Geometry((THREE,), "reflect")), "pads what the first"),
        (lambda: union([Geometry((ONE,)), Geometry((ONE, ONE))]), "different numbers of axes"),
        (lambda: union([Geometry((ONE,), fixed=1), Geometry((ONE,), fixed=2)]), "transposed .* different arguments"),
        (lambda: union([Geometry((THREE,), "reflect"), Geometry((THREE,))]), "padding modes reflect and zeros"),
        (lambda: shape_of_chain(make(1, 4, 2).shape, make(1, 2, 6).shape), "4 channels before and 6 behind"),
        (lambda: shape_of_stack([make(1, 4, 6).shape, make(1, 4, 2).shape]), "2 and 6 channels of the input"),
    ],
)
def test_what_does_not_fit_is_named(attempt: Callable[[], object], words: str) -> None:
    with pytest.raises(Misfit, match=words):
        attempt()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Geometry((ONE,)), Geometry((THREE,), "reflect"), Geometry((THREE,), "reflect")),
        (Geometry((THREE,), "reflect"), Geometry((Axis(3),)), Geometry((Axis(5, before=1, after=1),), "reflect")),
        (Geometry((THREE,), "reflect"), Geometry((ONE,), "circular"), Geometry((THREE,), "reflect")),
        (Geometry((ONE,)), Geometry((THREE,), fixed=1), Geometry((THREE,), fixed=1)),
        (Geometry((THREE,), fixed=1), Geometry((ONE,)), Geometry((THREE,), fixed=1)),
        (Geometry((Axis(stride=2),)), Geometry((Axis(3),)), Geometry((Axis(3, 2, 2),))),
        (Geometry((Axis(3, 2, 2, 1, 0),)), Geometry((Axis(2, 3),)), Geometry((Axis(4, 6, 2, 1, 0),))),
        (Geometry((Axis(2, 1, 3),)), Geometry((Axis(2, 1, 2),)), Geometry((Axis(6),))),
        (Geometry((Axis(1, 1, 5),)), Geometry((Axis(1, 1, 7),)), Geometry((Axis(),))),
    ],
)
def test_one_after_another(first: Geometry, second: Geometry, expected: Geometry) -> None:
    assert chained(first, second) == expected


def test_equal_transposed_convolutions_are_one() -> None:
    one = Geometry((THREE,), fixed=("stride", 2))
    assert union([one, Geometry((THREE,), fixed=("stride", 2))]) == one


def test_two_taps_keep_their_distance() -> None:
    pair = Geometry((Axis(2, dilation=2, before=2),))
    assert union([pair, Geometry((ONE,))]) == pair
    assert union([Geometry((Axis(dilation=2),)), Geometry((Axis(dilation=3),))]) == Geometry((ONE,))


def test_steps_count_positions_of_the_input() -> None:
    assert Geometry((Axis(3, 2), Axis(1, 3))).steps == 6
    assert Geometry().steps == 1


def test_single_precision_is_widened_before_filters_are_added_or_chained() -> None:
    single = torch.float32
    first, other = make(6, 12, 24, 3, dtype=single), make(4, 12, 24, 3, dtype=single, seed=4)
    second = make(6, 12, 12, 2, dtype=single, seed=2)
    for merge in (lambda a, b, _: chain_of(a, b), lambda a, _, c: sum_of([a, c]), lambda a, _, c: stack_of([a, c])):
        found, exact = merge(first, second, other), merge(*(widened(f) for f in (first, second, other)))
        assert_equal(exact.linear_map.kernel, found.linear_map.kernel, rtol=0.0)
        assert_equal(exact.linear_map.bias, found.linear_map.bias, rtol=0.0)


def widened(one: Filter) -> Filter:
    bias = one.linear_map.bias
    return Filter(LinearMap(one.linear_map.kernel.double(), None if bias is None else bias.double()), one.geometry)


def test_groups_are_widened_in_double_precision() -> None:
    coarse, fine = make(2, 8, 8, 3), make(4, 8, 8, 2, dtype=torch.float32, seed=2)
    assert_equal(chain_of(coarse, widened(fine)).linear_map.kernel, chain_of(coarse, fine).linear_map.kernel, rtol=0.0)
    assert fine.regrouped(2).dtype == fine.regrouped(4).dtype == torch.float64


@pytest.mark.parametrize("merge", [sum_of, stack_of])
def test_constants_go_where_the_weights_are(merge: Callable[[list[Filter]], Filter]) -> None:
    """An average lies on the CPU; the device of a layer counts, also if it is no larger."""
    average = Filter.average(4, Geometry((Axis(3),)), 3)
    layer = Filter(LinearMap(torch.empty(4, 1, 1, 3, device="meta"), None), average.geometry)
    biased = Filter(LinearMap(average.linear_map.stored, randn(4)), average.geometry)
    for order in ([average, layer, biased], [layer, biased, average]):
        merged = merge(order).linear_map
        assert merged.kernel.device.type == "meta"
        assert merged.bias is not None
        assert merged.bias.device.type == "meta"


def test_a_bias_goes_where_the_weights_are() -> None:
    first = Filter.diagonal(Affine(randn(4), randn(4, seed=1)), 1)
    layer = Filter(LinearMap(torch.empty(1, 4, 4, 3, device="meta"), None), Geometry((Axis(3),)))
    merged = chain_of(first, layer).linear_map
    assert merged.kernel.device.type == "meta"
    assert merged.bias is not None
    assert merged.bias.device.type == "meta"
