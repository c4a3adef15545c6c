"""A model, fused and written to a file, and what was written compared with the model before.

The file is read back and run before it takes its place: what the table says is said of the file, not of the model in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tabulate import tabulate
from torch import Tensor, nn

from fxfuse import fx_fuse
from fxfuse.cli import models, saved_program
from fxfuse.cli.export_formats import FORMATS, Counts, replacing
from fxfuse.cli.models import explained
from fxfuse.modules.comparison import TOLERANCE, difference, leaves
from fxfuse.modules.example_inputs import Inputs
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from fxfuse.cli.export_formats import Run

# Other runtimes add in another order, but share the arithmetic; a wrong fold is off by far more.
ALLOWED = {**TOLERANCE, torch.float32: 1e-4}
OTHER_BATCH = 3


@dataclass(frozen=True)
class Settings:
    """What to export, and how.

    Attributes:
        model: a name that `models.find` knows, or the path of a saved exported program.
        output: where to write; the suffix is the format.
        input_shape: of the input, batch included; None for a batch of one of what suits the model.
        dynamic_batch: whether what is written takes batches of any size.
        verify: write only what agrees with the original.
    """

    model: str
    output: Path
    input_shape: tuple[int, ...] | None = None
    dynamic_batch: bool = False
    verify: bool = False


@dataclass(frozen=True)
class Subject:
    """The model before, both graphs, and the inputs to compare on, of which the first must work."""

    original: nn.Module
    unfused: ExportedProgram
    fused: ExportedProgram
    trials: list[Inputs]


@dataclass(frozen=True)
class Result:
    """What was written.

    Attributes:
        model: its name.
        before: the graph of the model, unfused, in the same format.
        after: the graph that was written.
        errors: the shapes of the inputs -> the relative error of what was written against the original model.
    """

    model: str
    before: Counts
    after: Counts
    errors: dict[str, float]

    def __str__(self) -> str:
        """Return a table with a row for each input."""
        facts = (
            self.model,
            f"{self.before.nodes} -> {self.after.nodes}",
            f"{self.before.norms} -> {self.after.norms}",
        )
        rows = [
            (*(facts if number == 0 else ("", "", "")), shape, f"{error:.1e}")
            for number, (shape, error) in enumerate(self.errors.items())
        ]
        headers = ("model", "nodes", "norms", "input", "error")
        return tabulate(rows, headers, disable_numparse=True, colalign=("left", "right", "right", "left", "right"))


def export(settings: Settings) -> Result:
    """Fuse, write, read back and compare.

    Raises:
        FuseError: one of them is not possible, or the result differs and `verify` is asked for; the file is then what
            it was.
    """
    written = FORMATS[settings.output.suffix]
    for package in written.packages:
        models.need(package, "export")  # now, and not after minutes of work
    subject = _of_program(settings) if Path(settings.model).suffix == ".pt2" else _of_model(settings)
    advice = "the other format may take it" if written.packages else "export it in Python to see more"
    with replacing(settings.output) as path:
        with explained(f'"{settings.model}" cannot be written as {settings.output.suffix}', advice):
            before = Counts.of(written.operations(written.convert(subject.unfused)))
            converted = written.convert(subject.fused)
            written.save(converted, path)
            after = Counts.of(written.operations(converted))
            run = written.load(path)
        errors = _errors(settings, subject, run)
    return Result(settings.model, before, after, errors)


def _of_model(settings: Settings) -> Subject:
    """Build a model and fuse it; norms with random weights are taken far from the identity."""
    name, shape = settings.model, settings.input_shape
    if Path(name).is_file():
        raise FuseError(f'"{name}" is no exported program, so nothing was written; torch.export.save writes a .pt2')
    original = models.build(name, models.find(name))
    if models.weights_are_random(name):
        models.randomize(original)
    batch, *size = shape or (1, *models.input_size(original))
    other = OTHER_BATCH if batch != OTHER_BATCH else OTHER_BATCH - 1
    batches = [batch, other] if settings.dynamic_batch else [batch]
    trials = [_sample(original, (number, *size)) for number in batches]
    sample = trials[0].args[0]
    described = f"{str(sample.dtype).removeprefix('torch.')} of shape {tuple(sample.shape)}"
    with explained(f'"{name}" does not run on {described}', "--input-shape sets another shape"):
        trials[0].call(original)
    fused = fx_fuse(original, sample)
    example = max(trials, key=lambda trial: len(trial.args[0]))  # torch.export takes a batch of one for a constant
    return Subject(original, _exported(original, example, settings), _exported(fused, example, settings), trials)


def _of_program(settings: Settings) -> Subject:
    """Read a program and fuse it; its shapes are part of it."""
    if settings.input_shape or settings.dynamic_batch:
        raise FuseError(
            f'"{settings.model}" has its shapes in it, so nothing was written; leave out --input-shape, --input-size'
            " and --dynamic-batch, or export the model again"
        )
    program = saved_program.load(Path(settings.model))
    with explained(f'"{settings.model}" cannot be run', "run it in Python to see more"):
        original = program.module()
        trials = saved_program.inputs_of(program, original)
        fused = fx_fuse(program)
    return Subject(original, program, fused, trials)


def _exported(model: nn.Module, example: Inputs, settings: Settings) -> ExportedProgram:
    """The graph of a model; the batch is its first axis."""
    shapes = ({0: torch.export.Dim("batch", min=1)},) if settings.dynamic_batch else None
    whether = " with batches of any size" if shapes else ""
    advice = (
        "leave out --dynamic-batch, or look for what fixes the batch"
        if shapes
        else "change the forward, or fuse it in Python"
    )
    with explained(f'torch.export refuses "{settings.model}"{whether}', advice):
        return torch.export.export(model, example.copied().args, dynamic_shapes=shapes)


def _sample(model: nn.Module, shape: tuple[int, ...]) -> Inputs:
    """A random input, in the dtype of the weights; the same for the same arguments."""
    draw = torch.Generator().manual_seed(0)
    dtypes = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    return Inputs(torch.randn(shape, generator=draw).to(dtypes[0] if dtypes else torch.float32))


def _errors(settings: Settings, subject: Subject, run: Run) -> dict[str, float]:
    """The relative error on each input, the largest of all outputs; with `verify` it must be small."""
    found: dict[str, float] = {}
    for inputs in subject.trials:
        shapes = _shapes(inputs)
        with explained(f'"{settings.model}", or what was made of it, does not run on {shapes}', "report the model"):
            outputs = inputs.call(subject.original), run(inputs)
        expected, given = ([leaf for leaf in leaves(output) if isinstance(leaf, Tensor)] for output in outputs)
        found[shapes] = difference(expected, given)
        allowed = max((ALLOWED.get(t.dtype, 0.0) for t in expected), default=0.0)
        if settings.verify and found[shapes] > allowed:
            raise FuseError(
                f'what was made of "{settings.model}" differs from it by a relative {found[shapes]:.1e} on {shapes},'
                f" over {allowed:.0e}, so nothing was written; leave out --verify to write it all the same"
            )
    return found


def _shapes(inputs: Inputs) -> str:
    """The shape of each tensor of a call."""
    found = [leaf for leaf in leaves((inputs.args, dict(inputs.kwargs))) if isinstance(leaf, Tensor)]
    return ", ".join("x".join(map(str, tensor.shape)) or "a number" for tensor in found)
