"""Random models of layers that merge give what they gave, whatever merges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import assume, given

from fxfuse import Report, fx_fuse
from tests.fuzz.merges import INPUT, OPS, Op, build
from tests.fuzz.properties import assert_same_numbers
from tests.fuzz.test_random_graphs import examples
from tests.support.helpers import run, unchanged, values

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tests.support.helpers import Structure


def made(ops: list[Op]) -> tuple[nn.Module, Tensor, tuple[Tensor, ...]]:
    """A model, its input, and what it gives; models that torch cannot run (a view of what lies apart) are none."""
    model, x = build(ops), values(*INPUT)
    try:
        return model, x, run(model, (x,))
    except RuntimeError:
        assume(False)
        raise


def check(ops: list[Op], structure: Structure, *, growth: bool) -> None:
    """The fused model gives the same, also for inputs of other sizes."""
    model, x, expected = made(ops)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure, allow_growth=growth)
    assert_same_numbers(expected, run(fused, (x,)))
    other = values(1, INPUT[1], 9, 5)
    assert_same_numbers(run(model, (other,)), run(fused, (other,)))


@pytest.mark.parametrize("growth", [False, True])
@pytest.mark.parametrize("structure", ["graph", "module"])
@examples(80)
@given(ops=OPS)
def test_a_merged_model_gives_the_same(structure: Structure, growth: bool, ops: list[Op]) -> None:
    check(ops, structure, growth=growth)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["graph", "module"])
@examples(2000)
@given(ops=OPS)
def test_many(structure: Structure, ops: list[Op]) -> None:
    check(ops, structure, growth=len(ops) % 2 == 0)


@examples(12)
@given(ops=OPS)
def test_a_merged_program_gives_the_same(ops: list[Op]) -> None:
    model, x, expected = made(ops)
    program = torch.export.export(model, (x,))
    fused = fx_fuse(program)
    assert_same_numbers(expected, run(fused.module(), (x,)))
    assert all(d.into for d in Report.of(fused).folded)
