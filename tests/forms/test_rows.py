"""Every row of the table in every form that can express it: the fold happens, and changes nothing.

Each sample of ``tests.operators`` becomes a branch of a model, with an affine behind what is linear, and something
linear before the rest; one model holds all samples of one role and one shape, since an export costs more than a fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from fxfuse.modules.guards import AssumedRank, require_rank
from tests.forms.exceptions import ROWS
from tests.operators.calls import FirstItem
from tests.operators.samples import samples
from tests.support.graph_forms import FORMS
from tests.support.helpers import Model, assert_equal, run
from tests.support.samples import parameter

if TYPE_CHECKING:
    from tests.operators.sample import Sample

CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


class Scaled(Model):
    """A linear operation, and a scale for each of its channels."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x) * self.gain
        return y


class Chain(nn.Sequential):
    """A linear operation and what is or carries an affine, in the order in which they fold."""


class Together(Model):
    """Linear operations, what puts their results together, and a scale for the whole."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.sample(self.first(x), self.second(x.sin()), self.third(x.cos())))
        return y


class Gain(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gain
        return y


class Branches(nn.Module):
    """Several models side by side; with ``axes`` behind a check, which proves them to a plain trace as well."""

    def __init__(self, branches: dict[str, nn.Module], axes: int | None) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.axes = axes

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.axes is not None:
            x = require_rank(x, self.axes, "the input")
        # A view of repeated elements is no result that a fold may leave.
        return [torch.sin(branch(x)) for branch in self.branches.values()]


def branch(sample: Sample) -> nn.Module:
    """A model in which the sample folds, or is folded into."""
    result = run(sample.model, sample.inputs)
    if sample.role == "Linear":
        axis = output_axis(sample)
        return Scaled(linear=sample.model, gain=parameter(result.shape[axis], *[1] * (-1 - axis), seed=7))
    if sample.role == "AffineSource":
        return Chain(layer(sample, sample.x), sample.model)
    if sample.role == "Tail":
        return Chain(sample.model, layer(sample, sample.x))
    assert sample.pull is not None
    gain = Gain(gain=nn.Parameter(sample.pull(result.shape).scale.to(sample.x.dtype)))
    if sample.role in ("Join", "Sum"):
        layers = [layer(sample, value) for value in sample.inputs]
        return Together(first=layers[0], second=layers[1], third=layers[2], sample=sample.model, last=gain)
    return Chain(layer(sample, sample.x), sample.model, gain)


def output_axis(sample: Sample) -> int:
    """The axis of the channels, from the right: the number of spatial axes is in the name of the operation."""
    name = str(getattr(sample.target, "__name__", sample.target)).lower()
    if "conv" not in name:
        return -1
    dims = next((dims for dims in (1, 2, 3) if f"{dims}d" in name), sample.x.ndim - 2)
    return -1 - dims


def layer(sample: Sample, value: Tensor) -> nn.Module:
    """A layer that makes values of the shape of one input of a sample, with the channels along which it folds."""
    unbatched = "InstanceNorm" in str(sample.target) and sample.x.shape[0] == 4
    axes = sample.x.ndim + unbatched
    if axes == 2 or sample.push.axes == (-1,):
        return nn.Linear(sample.x.shape[-1], value.shape[-1]).to(sample.x.dtype)
    channels_axis = 0 if unbatched else 1
    return CONVOLUTIONS[axes](sample.x.shape[channels_axis], value.shape[channels_axis], 1).to(sample.x.dtype)


def has_a_layer(sample: Sample) -> bool:
    """Whether a scale alone passes, and there is a layer of which the channels are those along which it varies."""
    return sample.pull is not None and not sample.pull.keeps and sample.push.axes in ((1,), (-1,))


def can_be_exported(sample: Sample) -> bool:
    """Whether torch has a derivative for it: without weights this one has none."""
    without = isinstance(sample.model, FirstItem) and sample.model.plain[0] is None
    return not (without and sample.target is torch.ops.aten._batch_norm_no_update.default)


SAMPLES = samples()


def most_awkward(every: list[Sample]) -> list[Sample]:
    """The last call of each target; the laws have all combinations."""
    return list({sample.target: sample for sample in every}.values())


def plainest(every: list[Sample]) -> list[Sample]:
    """The first call of each target of which that is another one.

    Of overloads there is none, since torch.export writes them for the other targets as well.
    """
    first, last = ({sample.target: sample for sample in order} for order in (reversed(every), every))
    overloads = torch._ops.OpOverload
    return [
        sample for target, sample in first.items() if sample is not last[target] and not isinstance(target, overloads)
    ]


def groups() -> dict[str, list[Sample]]:
    """The samples that one model could hold, by role and what the input is like."""
    found: dict[str, list[Sample]] = {}
    for sample in SAMPLES:  # but for fxfuse's own checks, which stand only in its results
        if sample.target not in (AssumedRank, require_rank) and can_be_exported(sample) and has_a_layer(sample):
            shape = "x".join(map(str, sample.x.shape)) + f"-{sample.x.dtype}".removeprefix("-torch.float64")
            found.setdefault(f"{sample.role}-{shape}", []).append(sample)
    return found


GROUPS = [
    *(pytest.param(most_awkward(every), id=name) for name, every in groups().items()),
    *(
        pytest.param(others, id=f"{name}-plainest", marks=pytest.mark.slow)
        for name, every in groups().items()
        if (others := plainest(every))
    ),
]


def excused(sample: Sample, form: str) -> bool:
    """Whether a sample is known not to fold in a form."""
    return any(row.applies(sample) and form in row.forms for row in ROWS)


@pytest.mark.filterwarnings("ignore:.*(deprecated|Using padding='same')")
@pytest.mark.parametrize("chosen", GROUPS)
def test_every_row_folds_in_every_form(chosen: list[Sample]) -> None:
    x, carries = chosen[0].x, chosen[0].role not in ("Linear", "AffineSource")
    branches = {f"b{number}": branch(sample) for number, sample in enumerate(chosen)}
    model = Branches(branches, x.ndim if carries else None).eval()
    expected, folds = run(model, (x,)), {}
    for name, form in FORMS.items():
        fused = form.fuse(model, (x,))
        assert_equal(expected, list(fused.run(x)))
        folds[name] = sum(decision.rule != "join_constants" for decision in fused.report.folded)
    assert folds == {name: sum(not excused(sample, name) for sample in chosen) for name in FORMS}


def test_every_exception_is_a_sample() -> None:
    assert all(any(row.applies(sample) for sample in SAMPLES) for row in ROWS)
    assert all(row.why.endswith(".") for row in ROWS)
