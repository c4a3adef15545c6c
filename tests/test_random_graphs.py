"""Properties of every result, on random models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.helpers import assert_equal, run, trained, unchanged, values

Step = tuple[Any, ...]
WIDTH = 4
# Each step makes a value from earlier ones; the numbers choose among values and shared modules.
CALLS = ("conv", "depthwise", "transposed", "norm", "relu", "identity", "dropout")
MODULES = st.tuples(st.sampled_from(CALLS), st.integers(0, 2), st.integers(0, 9))
FUNCTIONS = st.tuples(
    st.sampled_from(["f.conv", "f.norm", "f.relu", "f.scale", "f.shift", "f.dropout"]),
    st.integers(0, 1),
    st.integers(0, 9),
)
JOINS = st.tuples(st.sampled_from(["add", "cat", "relu_"]), st.integers(0, 9), st.integers(0, 9))
# A convolution with a norm behind it, so that folds are common.
PAIRS = st.tuples(st.just("pair"), st.integers(0, 2), st.integers(0, 2), st.integers(0, 9))


def make(kind: str) -> nn.Module:
    """A module of a kind, for images of WIDTH channels."""
    return {
        "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
        "depthwise": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
        "transposed": lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1, groups=2),
        "norm": lambda: nn.BatchNorm2d(WIDTH),
        "relu": nn.ReLU,
        "identity": nn.Identity,
        "dropout": nn.Dropout,
    }[kind]()


@dataclass
class Shape:
    """What a random model consists of."""

    steps: list[Step]
    outputs: int


class Net(nn.Module):
    """A model of which the forward follows a list of steps."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.steps = [tuple(part) for step in shape.steps for part in _parts(step)]
        self.outputs = shape.outputs
        self.layers = nn.ModuleDict({f"{s[0]}{s[1]}": make(s[0]) for s in self.steps if s[0] in CALLS})
        for number in range(2):
            self.register_parameter(f"weight{number}", nn.Parameter(values(WIDTH, WIDTH, 1, 1)))
            self.register_buffer(f"mean{number}", values(WIDTH))
            self.register_buffer(f"var{number}", values(WIDTH).exp())
            self.register_parameter(f"gain{number}", nn.Parameter(values(WIDTH, 1, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = [x]
        for step in self.steps:
            found.append(self._step(step, found))
        return tuple(found[-self.outputs :])

    def _step(self, step: Step, found: list[Tensor]) -> Tensor:
        kind, number = step[0], step[1]
        # The latest value is by far the likeliest.
        x = found[-1] if step[2] > 2 else found[(step[2] - 1) % len(found)]
        if kind in CALLS:
            y: Tensor = self.layers[f"{kind}{number}"](x)
            return y
        if kind.startswith("f."):
            return self._function(kind, number, x)
        if kind == "relu_":
            return (x + 1).relu_()
        other = found[step[1] % len(found)]
        return x + other if kind == "add" else torch.cat([x, other], 2)[:, :, : x.shape[2]]

    def _function(self, kind: str, number: int, x: Tensor) -> Tensor:
        weight, gain = getattr(self, f"weight{number}"), getattr(self, f"gain{number}")
        if kind == "f.conv":
            return F.conv2d(x, weight)
        if kind == "f.norm":
            return F.batch_norm(x, getattr(self, f"mean{number}"), getattr(self, f"var{number}"))
        if kind == "f.scale":
            return x * gain
        if kind == "f.shift":
            return 1 - x + gain
        return F.relu(x) if kind == "f.relu" else F.dropout(x, 0.5, self.training)


def _parts(step: Step) -> list[Step]:
    """A pair is two steps, everything else one."""
    if step[0] == "pair":
        return [("conv", step[1], step[3]), ("norm", step[2], 9)]
    return [step]


SHAPES = st.builds(
    Shape,
    st.lists(st.one_of(PAIRS, MODULES, FUNCTIONS, JOINS), min_size=2, max_size=9),
    st.integers(1, 2),
)
SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


def model_of(shape: Shape) -> Net:
    torch.manual_seed(len(shape.steps))
    return trained(Net(shape))


@pytest.mark.parametrize("structure", ["graph", "module"])
@SETTINGS
@given(shape=SHAPES)
def test_random_models(structure: Literal["graph", "module"], shape: Shape) -> None:
    model, x = model_of(shape), values(2, WIDTH, 5, 5)
    expected = run(model, (x,))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_equal(expected, run(fused, (x,)), rtol=1e-10)
    report = Report.of(fused)
    again = fx_fuse(fused, structure=structure)
    assert not Report.of(again).folded, str(Report.of(again))
    assert_equal(expected, run(again, (x,)), rtol=1e-10)
    assert_every_norm_is_told(model, report)


def assert_every_norm_is_told(model: Net, report: Report) -> None:
    """Each norm stands in the report once; a shared one at most once for each of its calls."""
    told = Counter(d.path for d in report.decisions if d.kind == "BatchNorm2d")
    calls = Counter(f"layers.{s[0]}{s[1]}" for s in model.steps if s[0] == "norm")
    assert told.keys() == calls.keys()
    assert all(1 <= told[path] <= count for path, count in calls.items()), str(report)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shape=SHAPES)
def test_example_inputs_change_no_fold(shape: Shape) -> None:
    model, x = model_of(shape), values(2, WIDTH, 5, 5)
    without, given_inputs = Report.of(fx_fuse(model)), Report.of(fx_fuse(model, x))
    paths = [sorted(d.path for d in report.folded) for report in (without, given_inputs)]
    assert paths[0] == paths[1]
    assert not any(d.assumed for d in given_inputs.folded)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shape=SHAPES)
def test_without_copies_no_weight_is_doubled(shape: Shape) -> None:
    model, x = model_of(shape), values(2, WIDTH, 5, 5)
    fused = fx_fuse(model, allow_copies=False)
    assert Report.of(fused).copied_bytes == 0
    assert_equal(run(model, (x,)), run(fused, (x,)), rtol=1e-10)
