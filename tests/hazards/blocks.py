"""Layers and checks that the tests of traced and untraced forwards share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import FuseError, Reason, Report, fx_fuse
from tests.support.helpers import Model, assert_equal, assert_same, folds, reasons, run, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# Forwards of these tests branch at a batch of more than four: the first shape takes one side, the last the other.
SHAPES = ((2, 3, 6, 6), (1, 3, 6, 6), (3, 3, 5, 8), (6, 3, 6, 6))

# With example inputs and without.
EXAMPLES = [None, (2, 3, 6, 6)]

# Why a fold stays undone where nobody proved it: the code was not traced, reaches into the fold, or knows an object.
UNPROVEN = {Reason.OPAQUE, Reason.REACHED_INTO, Reason.BOUND}


class Block(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Functional(Model):
    """Its convolution and its gain are functions of its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight) * self.gain


def layers() -> dict[str, nn.Module]:
    """A convolution that keeps the shape, and a norm."""
    return {"conv": nn.Conv2d(3, 3, 3, padding=1), "bn": nn.BatchNorm2d(3)}


def block() -> Block:
    return Block(**layers())


def sequence() -> nn.Sequential:
    return nn.Sequential(*layers().values())


def example(shape: tuple[int, ...] | None) -> Tensor | None:
    return None if shape is None else values(*shape)


def batch_of(x: Tensor) -> int:
    """The batch size as a number: a forward that calls this cannot be traced."""
    return int(x.shape[0])


def assert_decided(
    model: nn.Module,
    *,
    folded: Collection[str] = (),
    left: Mapping[str, Reason] | None = None,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    **options: Any,
) -> nn.Module:
    """Fuse; the decisions on norms are exactly these, and the result is right for every shape."""
    with unchanged(model):
        fused = fx_fuse(model, **options)
    assert_same(model, fused, values(*shapes[0]))
    assert folds(fused) == sorted(folded)
    stays = {d.path: d.reason for d in Report.of(fused).skipped if d.subject != "merge"}
    assert stays == dict(left or {})
    assert_right(model, fused, [values(*shape) for shape in shapes[1:]])
    return fused


def assert_stays(
    model: nn.Module,
    paths: Collection[str],
    *,
    because: Collection[Reason] = frozenset(UNPROVEN),
    inputs: Sequence[Any] = (),
    **options: Any,
) -> nn.Module:
    """Fuse; the norms at these paths stay for one of some reasons, and the result is right for every input."""
    with unchanged(model):
        fused = fx_fuse(model, **options)
    assert_right(model, fused, inputs or [values(*shape) for shape in SHAPES])
    left = dict(reasons(fused))
    assert set(paths) <= left.keys(), f"folded: {folds(fused)}"
    assert {left[path] for path in paths} <= set(because)
    return fused


def assert_sequence_needs_a_run(model: nn.Module, always: str, path: str, example: tuple[int, ...] | None) -> nn.Module:
    """A block folds in any case; a sequence that untraced code might open folds with example inputs."""
    if example is None:
        fused = assert_stays(model, [path], because={Reason.OPAQUE})
        assert folds(fused) == [always]
        return fused
    return assert_decided(model, folded=[always, path], example_inputs=values(*example))


def assert_right(model: nn.Module, fused: nn.Module, inputs: Sequence[Any]) -> None:
    """Both give the same for each input, with the same random numbers."""
    for inner in inputs:
        outputs = []
        for either in (model, fused):
            torch.manual_seed(1)
            outputs.append(run(either, (inner,)))
        assert_equal(*outputs)


def assert_recorded(
    model: nn.Module,
    path: str,
    *,
    example: Any,
    inputs: Sequence[Any] = (),
    branches: bool | None = None,
    evidence: str = "recorded",
) -> nn.Module:
    """Fuse with an example: the norm folds; any other way of calling is right, or an error that says so.

    Args:
        model: the model.
        path: the norm.
        example: the example input, for which the result is right.
        inputs: others; by default of all shapes.
        branches: whether some input must take another way; None for either.
        evidence: how the fold is told.
    """
    with unchanged(model):
        fused = fx_fuse(model, example)
    assert [(d.path, d.evidence) for d in Report.of(fused).folded if d.path == path] == [(path, evidence)]
    assert_right(model, fused, [example])
    inputs, told = inputs or [values(*shape) for shape in SHAPES], 0
    for x in inputs:
        expected = run(model, (x,))
        try:
            given = run(fused, (x,))
        except (FuseError, ValueError) as error:
            assert "example" in str(error)  # noqa: PT017 - or none is raised
            told += 1
        else:
            assert_equal(expected, given)
    assert branches is None or bool(told) is branches, f"{told} of {len(inputs)} told"
    return fused
