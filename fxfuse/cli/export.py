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
from fxfuse.cli.export_formats import FORMATS, Counts, operations, replacing
from fxfuse.cli.failures import explained, running
from fxfuse.cli.terminal import steps
from fxfuse.modules.comparison import TOLERANCE, difference, leaves
from fxfuse.modules.example_inputs import Inputs
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

    from fxfuse.cli.export_formats import Run
    from fxfuse.cli.settings import Export

# Other runtimes add in another order, but share the arithmetic; a wrong fold is off by far more.
ALLOWED = {**TOLERANCE, torch.float32: 1e-4}
OTHER_BATCH = 3
SHAPE = "--input-shape sets another shape: that of the input, with the batch"


@dataclass(frozen=True)
class Subject:
    """The model before, both graphs, the inputs to compare on (the first must work), and whether weights are random."""

    original: nn.Module
    unfused: ExportedProgram
    fused: ExportedProgram
    trials: list[Inputs]
    random: bool = False


@dataclass(frozen=True)
class Result:
    """What was written.

    Attributes:
        model: its name.
        norms: how many norms the model has, as an exported program.
        alone: what the exporter makes of the model without fxfuse, in the same format.
        after: the graph that was written.
        errors: the shapes of the inputs -> the relative error of what was written against the original model.
        random: the weights were never trained.
    """

    model: str
    norms: int
    alone: Counts
    after: Counts
    errors: dict[str, float]
    random: bool = False

    def __str__(self) -> str:
        """Return a table with a row for each input."""
        nodes, norms = f"{self.alone.nodes} -> {self.after.nodes}", f"{self.norms} -> {self.after.norms}"
        counts = (self.model, nodes, norms, str(self.alone.norms))
        rows = [
            (*(counts if number == 0 else [""] * len(counts)), shape, f"{error:.1e}")
            for number, (shape, error) in enumerate(self.errors.items())
        ]
        headers = ("model", "nodes", "norms", "exporter alone", "input", "error")
        align = ("left", *["right"] * 3, "left", "right")
        table = tabulate(rows, headers, disable_numparse=True, colalign=align)
        fused_before = "It has no norm: it was fused before, or never had one.\n\n" if not self.norms else ""
        advice = "\n\nIts weights are random; --weights FILE loads trained ones." if self.random else ""
        return fused_before + table + advice


def export(settings: Export) -> Result:
    """Fuse, write, read back and compare.

    Raises:
        FuseError: one of them is not possible, or the result differs and `verify` is asked for; the file is then what
            it was.
    """
    written = FORMATS[settings.output.suffix]
    for package in written.packages:
        models.need(package, "export")  # now, and not after minutes of work
    advice = "the other format may take it" if written.packages else "export it in Python to see more"
    with replacing(settings.output) as path, steps(settings.model, 6) as step:
        subject = (_of_program if Path(settings.model).suffix == ".pt2" else _of_model)(settings, step)
        with explained(f'"{settings.model}" cannot be written as {settings.output.suffix}', advice):
            step("writing without fxfuse")
            norms = Counts.of(operations(subject.unfused)).norms
            alone = Counts.of(written.operations(written.convert(subject.unfused, settings.dynamic_axes)))
            step("writing")
            converted = written.convert(subject.fused, settings.dynamic_axes)
            written.save(converted, path)
            after = Counts.of(written.operations(converted))
            run = written.load(path)
        step("comparing")
        errors = _errors(settings, subject, run)
    return Result(settings.model, norms, alone, after, errors, subject.random)


def _of_model(settings: Export, step: Callable[[str], None]) -> Subject:
    """Build a model and fuse it; norms with random weights are taken far from the identity."""
    name, shape = settings.model, settings.input_shape
    step("building")
    original, random = models.prepared(name, models.find(name), settings.weights)
    given = models.sample(original, shape or (1, *models.input_size(original)))
    trials = [Inputs(_read(settings.input) if settings.input else given)]
    sample = trials[0].args[0]
    if settings.dynamic_axes:
        sizes = _other_sizes(settings, sample.shape)
        trials.append(Inputs(_repeated(sample, sizes) if settings.input else models.sample(original, sizes)))
    with running(name, sample, "pass --input of the shape and dtype it takes" if settings.input else SHAPE):
        trials[0].call(original)
    step("fusing")
    fused = fx_fuse(original, sample)
    step("exporting")
    example = max(trials, key=lambda trial: len(trial.args[0]))  # torch.export takes a batch of one for a constant
    before, after = (_exported(model, example, settings) for model in (original, fused))
    return Subject(original, before, after, trials, random)


def _of_program(settings: Export, step: Callable[[str], None]) -> Subject:
    """Read a program and fuse it; its shapes are part of it."""
    if settings.input_shape or settings.dynamic_axes or settings.weights:
        raise FuseError(
            f'"{settings.model}" has its shapes and weights in it, so nothing was written; leave out --input-shape,'
            " --input-size, --dynamic-batch, --dynamic-axes and --weights, or export the model again"
        )
    step("reading")
    program = saved_program.load(Path(settings.model))
    with explained(f'"{settings.model}" cannot be run', "run it in Python to see more"):
        trial = Inputs(_read(settings.input)) if settings.input else saved_program.inputs_of(program)
        step("fusing")
        fused = fx_fuse(program)
    return Subject(program.module(), program, fused, [trial])


def _exported(model: nn.Module, example: Inputs, settings: Export) -> ExportedProgram:
    """The graph of a model, whose axes with a name may have any size."""
    dynamic = torch.export.Dim.DYNAMIC  # from what size on, follows from the model: a kernel must fit in
    names = settings.dynamic_axes.items()
    axes = {axis: dynamic if axis else torch.export.Dim(name, min=1) for axis, name in names}
    whether = f" with any {' and '.join(settings.dynamic_axes.values())}" if axes else ""
    advice = (
        "leave out --dynamic-batch and --dynamic-axes, or look for what fixes the size"
        if axes
        else "change the forward, or fuse it in Python"
    )
    with explained(f'torch.export refuses "{settings.model}"{whether}', advice):
        return torch.export.export(model, example.copied().args, dynamic_shapes=(axes,) if axes else None)


def _read(path: Path) -> Tensor:
    """The array in a file of NumPy; what would have to be unpickled is refused."""
    numpy = models.need("numpy", "export")
    with explained(f'"{path}" cannot be read as an array', "write it with numpy.save"):
        return torch.from_numpy(numpy.load(path, allow_pickle=False))


def _repeated(sample: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """An array of other sizes with the values of an array, which may have to be numbers of words, say."""
    for axis, size in enumerate(sizes):
        sample = sample.index_select(axis, torch.arange(size) % sample.shape[axis])
    return sample


def _other_sizes(settings: Export, shape: torch.Size) -> tuple[int, ...]:
    """Other sizes along the axes that may have any: another batch, and one more along the others."""
    if max(settings.dynamic_axes) >= len(shape):
        raise FuseError(
            f"The input has {len(shape)} axes, and --dynamic-axes names axis {max(settings.dynamic_axes)}, so nothing "
            "was written; axes are counted from 0, the batch"
        )
    other = OTHER_BATCH if shape[0] != OTHER_BATCH else OTHER_BATCH - 1
    return tuple(
        size if axis not in settings.dynamic_axes else size + 1 if axis else other for axis, size in enumerate(shape)
    )


def _errors(settings: Export, subject: Subject, run: Run) -> dict[str, float]:
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
