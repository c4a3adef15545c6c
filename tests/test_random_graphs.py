"""Properties of every result, on random models."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.helpers import run, unchanged, values
from tests.random_chains import WITH_CARRIERS
from tests.random_models import INPUT, SHAPES, Net, OptionalNet, Shape

if TYPE_CHECKING:
    from tests.helpers import Structure


def examples(count: int) -> settings:
    """The same examples every time, and no time limit for one, since machines differ."""
    return settings(max_examples=count, deadline=None, derandomize=True)


def assert_close(expected: tuple[Tensor, ...], given: tuple[Tensor, ...], rtol: float = 1e-10) -> None:
    """Two outputs are the same but for rounding; zeros behind a ReLU are no proof, but no fault either."""
    assert len(expected) == len(given)
    for one, other in zip(expected, given, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.isfinite().all()
        gap = float((one - other).abs().max())
        assert gap <= rtol * max(float(one.abs().max()), 1.0), f"absolute error {gap:.1e}"


def possible(shape: Shape, structure: Structure) -> Any:
    """A graph cannot be had of what cannot be traced."""
    return None if shape.root == "branching" else structure


def fused_twice(shape: Shape, structure: Structure) -> tuple[Net, Tensor, nn.Module, nn.Module]:
    """A model, its input, and what it and its result are fused to: all give the same, and each norm is told."""
    model, x = shape.build(), values(*INPUT)
    expected = run(model, (x,))
    with unchanged(model):
        fused = fx_fuse(model, structure=possible(shape, structure))
    assert_close(expected, run(fused, (x,)))
    assert_every_norm_is_told(model, Report.of(fused))
    again = fx_fuse(fused, structure=possible(shape, structure))
    assert_close(expected, run(again, (x,)))
    return model, x, fused, again


@pytest.mark.parametrize("structure", ["graph", "module"])
@examples(40)
@given(shape=SHAPES)
def test_a_fused_model_gives_the_same_and_cannot_be_fused_again(structure: Structure, shape: Shape) -> None:
    model, x, fused, again = fused_twice(shape, structure)
    assert not Report.of(again).folded, str(Report.of(again))
    if isinstance(model, OptionalNet):
        assert_right_or_refused(model, fused, x)


def assert_every_norm_is_told(model: Net, report: Report) -> None:
    """Each norm of the model stands in the report."""
    norms = {path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {d.path for d in report.decisions if d.kind == "BatchNorm2d"} == norms


def assert_right_or_refused(model: Net, fused: nn.Module, x: Tensor) -> None:
    """Called in another way, it gives what the model gives, or raises."""
    with contextlib.suppress(ValueError):
        given = run(fused, (x, True))
        assert_close(run(model, (x, True)), given)


@pytest.mark.parametrize("structure", ["graph", "module"])
@examples(25)
@given(shape=WITH_CARRIERS)
def test_affines_that_pass_other_operations(structure: Structure, shape: Shape) -> None:
    fused_twice(shape, structure)


@examples(15)
@given(shape=SHAPES)
def test_example_inputs_prove_what_is_assumed(shape: Shape) -> None:
    model, x = shape.build(), values(*INPUT)
    without, inputs_given = Report.of(fx_fuse(model)), Report.of(fx_fuse(model, x))
    folded = [{d.path for d in report.folded} for report in (without, inputs_given)]
    assert folded[0] <= folded[1]
    assert shape.root == "branching" or not any(d.assumed for d in inputs_given.folded)
    assert not any(d.reason and d.reason.name == "DIFFERS" for d in inputs_given.skipped)


@examples(20)
@given(shape=SHAPES)
def test_without_copies_no_weight_is_doubled(shape: Shape) -> None:
    model, x = shape.build(), values(*INPUT)
    fused = fx_fuse(model, allow_copies=False)
    assert Report.of(fused).copied_bytes == 0
    assert_close(run(model, (x,)), run(fused, (x,)))
