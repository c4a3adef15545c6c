"""``Affine`` keeps its meaning, ``x -> scale * x + shift``, whatever is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxfuse.algebra.affine import Affine
from tests.support.helpers import assert_equal
from tests.support.samples import SETTINGS, randn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@st.composite
def affines(draw: st.DrawFn, sizes: Sequence[int]) -> Affine:
    """An affine that broadcasts against a value of these sizes: axes are left out or one wide by chance."""

    def shape() -> list[int]:
        kept = list(sizes[draw(st.integers(0, len(sizes))) :])
        return [n if draw(st.booleans()) else 1 for n in kept]

    seed = draw(st.integers(0, 1000))
    return Affine(randn(*shape(), seed=seed), randn(*shape(), seed=seed + 1))


@st.composite
def affine_and_value(draw: st.DrawFn) -> tuple[Affine, torch.Tensor]:
    sizes = draw(SIZES)
    return draw(affines(sizes)), randn(*sizes, seed=7)


@SETTINGS
@given(st.data())
def test_after_is_composition(data: st.DataObject) -> None:
    sizes = data.draw(SIZES)
    first, second, x = data.draw(affines(sizes)), data.draw(affines(sizes)), randn(*sizes)
    assert_equal(second(first(x)), second.after(first)(x))


@SETTINGS
@given(st.data())
def test_composition_is_associative(data: st.DataObject) -> None:
    sizes = data.draw(SIZES)
    a, b, c = (data.draw(affines(sizes)) for _ in range(3))
    x = randn(*sizes)
    assert_equal(a.after(b.after(c))(x), a.after(b).after(c)(x))


@SETTINGS
@given(affine_and_value(), st.randoms(use_true_random=False))
def test_an_affine_makes_the_same_move_as_its_value(pair: tuple[Affine, torch.Tensor], random: object) -> None:
    affine, x = pair
    order = list(range(x.ndim))
    random.shuffle(order)  # type: ignore[attr-defined] # random.Random
    moved = affine.with_rank(x.ndim).rearrange(lambda t: t.permute(order))
    assert_equal(affine(x).permute(order), moved(x.permute(order)))


@pytest.mark.parametrize(
    "move",
    [
        lambda t: torch.cat([t, t], 1),
        lambda t: t.flip(1),
        lambda t: t.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2),
        lambda t: t.chunk(2, 1)[1],
    ],
)
def test_moves_of_the_channels(move: Callable[[torch.Tensor], torch.Tensor]) -> None:
    affine, x = Affine(randn(1, 6, 1), randn(1, 6, 1, seed=1)), randn(2, 6, 5, seed=2)
    assert_equal(move(affine(x)), affine.rearrange(move)(move(x)))


@SETTINGS
@given(affine_and_value(), st.integers(0, 3))
def test_with_rank_adds_axes_and_no_meaning(pair: tuple[Affine, torch.Tensor], extra: int) -> None:
    affine, x = pair
    wider = affine.with_rank(affine.rank + extra)
    assert wider.rank == wider.scale.ndim == wider.shift.ndim == affine.rank + extra
    if wider.rank <= x.ndim:
        assert_equal(affine(x), wider(x))


@SETTINGS
@given(affine_and_value())
def test_rank_is_that_of_the_larger_tensor(pair: tuple[Affine, torch.Tensor]) -> None:
    affine, x = pair
    assert affine.rank == affine(x.sum()).ndim


@SETTINGS
@given(
    channels=st.integers(1, 4),
    before=st.lists(st.just(1), max_size=2),
    after=st.lists(st.integers(1, 3), max_size=2),
    kind=st.sampled_from(["vector", "scalar scale", "scalar shift"]),
)
def test_vector_accepts_what_varies_along_the_channels_only(
    channels: int, before: list[int], after: list[int], kind: str
) -> None:
    axis = -1 - len(after)
    shape = (*before, channels, *[1] * len(after))
    scale, shift = randn(*shape), randn(*shape, seed=1)
    scale = randn(1)[0] if kind == "scalar scale" else scale
    shift = randn(1)[0] if kind == "scalar shift" else shift
    affine = Affine(scale, shift)
    vector = affine.vector(axis, channels)
    assert vector is not None
    assert vector.scale.shape == vector.shift.shape == (channels,)
    x = randn(2, channels, *after, seed=2)
    along = vector.rearrange(lambda t: t.reshape(channels, *[1] * len(after)))
    assert_equal(affine(x).squeeze(), along(x).squeeze())


@pytest.mark.parametrize(
    ("shape", "axis", "size"),
    [
        ((4,), -3, 4),  # along the width
        ((1, 4), -3, 4),  # likewise
        ((4, 1), -3, 4),  # along the height
        ((4, 4, 1), -3, 4),  # along channels and height
        ((4, 1, 1, 1), -3, 4),  # per sample
        ((2, 1, 1), -3, 4),  # another number of channels
        ((8, 1, 1), -3, 4),
        ((4, 1, 1), -1, 4),  # channels last
        ((2, 4), -1, 4),
    ],
)
@pytest.mark.parametrize("which", ["scale", "shift", "without varying"])
def test_vector_refuses_what_is_not_per_channel(shape: tuple[int, ...], axis: int, size: int, which: str) -> None:
    # What does not vary along another axis can still make the value wider there.
    varying = torch.ones(shape).double() if which == "without varying" else randn(*shape)
    constant = torch.ones((), dtype=torch.float64)
    affine = Affine(constant, varying) if which == "shift" else Affine(varying, constant)
    assert affine.vector(axis, size) is None


def test_vector_of_a_scalar_is_the_same_for_every_channel() -> None:
    vector = Affine(torch.tensor(2.0), torch.tensor(3.0)).vector(-2, 5)
    assert vector is not None
    assert vector.scale.tolist() == [2.0] * 5
    assert vector.shift.tolist() == [3.0] * 5
