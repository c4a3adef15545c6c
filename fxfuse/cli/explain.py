"""What would be folded in a model, and which other way of calling would fold more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import fxfuse
from fxfuse.cli import failures, html_report, models, saved_program
from fxfuse.cli.export_formats import replacing
from fxfuse.cli.terminal import steps
from fxfuse.modules.example_inputs import Inputs
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason
from fxfuse.report.report import Report
from fxfuse.report.table import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fxfuse.cli.settings import Explain

RANDOM = "The norms were never trained, so they got random numbers far from the identity, as in bench and export."


def explain(asked: Explain) -> Report:
    """Return the report of a model by its name, or of a saved exported program.

    Raises:
        FuseError: it cannot be built or read, or cannot be fused.
    """
    with steps(asked.model, 4) as step:
        step("building")
        model: Any
        example: Any
        if Path(asked.model).suffix == ".pt2":
            model, example, notes = *_program(asked), list[str]()
        else:
            model, example, notes = _model(asked)
        step("fusing")
        found = html_report.Explained.of(model, example)
        report = found.report
        if asked.lower:
            step("lowering")
            fused = fxfuse.fx_fuse(model, example)
            lowered = fxfuse.lower(getattr(fused, "module", lambda: fused)(), example)
            report = replace(Report.of(lowered), sizes=report.sizes)
        step("trying other ways")
        notes += _better(model, example, report)
    for note in notes:
        report, found = report.noted(note), found.noted(note)
    if asked.html:
        with replacing(asked.html) as page:
            page.write_text(found.page(asked.model), encoding="utf-8")
    return report


def _program(asked: Explain) -> tuple[Any, Inputs | None]:
    """Return a saved program, and the call that it was exported with, if that is stored."""
    if asked.input_size or asked.weights:
        raise FuseError(
            f'"{asked.model}" has shapes and weights in it, so nothing was done; leave out --input-size and --weights'
        )
    program = saved_program.load(Path(asked.model))
    try:
        return program, saved_program.inputs_of(program)
    except FuseError:  # there are none
        return program, None


def _model(asked: Explain) -> tuple[Any, Tensor | None, list[str]]:
    """Return a model, an input of the size that is asked for or known, and what to say of them."""
    model, random = models.prepared(asked.model, models.find(asked.model), asked.weights)
    notes = [RANDOM] if random and models.norms(model) else []
    if asked.input_size:
        example = models.sample(model, (1, *asked.input_size))
        with failures.running(asked.model, example, failures.SIZE):
            Inputs(example).call(model)
        return model, example, notes
    if not models.weights_are_random(asked.model):  # nobody knows the size
        return model, None, notes
    example = models.sample(model, (1, *models.input_size(model)))
    try:
        with failures.quiet():
            Inputs(example).call(model)
    except Exception as error:  # noqa: BLE001 - a detector takes a list of images, and fails in its own way
        shape = "x".join(map(str, example.shape))
        notes.append(f"It does not run on {shape} ({failures.first_line(error)}), so this was found without an input.")
        return model, None, notes
    return model, example, notes


def _better(model: Any, example: Any, report: Report) -> Iterator[str]:
    """Yield the other ways of calling that leave less, each with the number; none that does not help."""
    left = _left(report)
    ways: dict[str, Callable[[], Report]] = {}
    if report.structure == "module":
        ways["structure='graph'"] = lambda: fxfuse.explain(model, example, structure="graph")
    tried = _usual_input(model) if example is None and isinstance(model, nn.Module) else example
    if isinstance(tried, Tensor):
        if example is None:
            size = ",".join(map(str, tried.shape[1:]))
            ways[f"--input-size {size}"] = lambda: fxfuse.explain(model, tried)
        ways["fusing the exported program"] = lambda: fxfuse.explain(_exported(model, tried))
    for way, run in ways.items() if any(left) else ():
        try:
            with failures.quiet():
                fewer = _left(run())
        except Exception:  # noqa: BLE001, S112 - a way that fails is no advice
            continue
        if fewer[0] < left[0]:
            yield f"Another way folds more: {way} leaves {counted(fewer[0], 'norm')} instead of {left[0]}."
        elif fewer < left:
            stay = f"the constants of {counted(fewer[1], 'operation')}"
            yield f"Another way folds more: {way} leaves {stay} instead of {left[1]}."


def _usual_input(model: nn.Module) -> Tensor:
    """An input of the size that most models take, for one that nobody knows the size of."""
    return models.sample(model, (1, *models.input_size(model)))


def _left(report: Report) -> tuple[int, int]:
    """How many norms and other constants are left that the forward calls; an exported program has no others."""
    stay = Counter(decision.subject for decision in report.skipped if decision.reason is not Reason.NOT_CALLED)
    return stay["norm"], stay["constants"]


def _exported(model: nn.Module, example: Tensor) -> Any:
    return torch.export.export(model, (example,))
