"""A pass from beginning to end: capture, rules, result, and whatever has to be undone on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.export import ExportedProgram

from fxfuse.capture.capture import Capture, capture, capture_graph
from fxfuse.capture.chains import add_chains
from fxfuse.capture.check_on_inputs import prove
from fxfuse.capture.exported_program import capture_program, holder_of_program, runnable
from fxfuse.modules.example_inputs import Inputs, agree, amplifies_rounding, difference, reference
from fxfuse.pipeline.attempt import Attempt
from fxfuse.pipeline.bisect import culprits
from fxfuse.pipeline.default_arguments import decisive_arguments
from fxfuse.pipeline.recorded import capture_runs
from fxfuse.pipeline.retrace import unfaithful
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.report.report import Report
from fxfuse.write_back.replacements import folded_modules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.pipeline.options import Options
    from fxfuse.report.reasons import Refusal


def fuse(
    model: nn.Module | ExportedProgram, example_inputs: Any, options: Options
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Return what was done, and the fused model; with example inputs, one that was compared with the model on them."""
    if isinstance(model, ExportedProgram):
        options = replace(options, holder=holder_of_program(model))
    if example_inputs is None:
        return _attempt(model, None, options, {})
    inputs = Examples.of(runnable(model), example_inputs)
    attempt, result = _attempt_or_less(model, inputs, options)
    gap = _gap(result, inputs)
    if gap is None:
        return attempt, result
    if math.isfinite(gap) and inputs.amplify(runnable(model)):
        note = f"The model amplifies rounding, so that a comparison on the example inputs (off by {gap:.1e}) says nothing."
        Report.of(result).noted(note).attach(result)
        return attempt, result

    def gap_without(kept: Mapping[nn.Module, Refusal]) -> float | None:
        return _gap(_attempt(model, inputs, options, kept)[1], inputs)

    kept = culprits(folded_modules(attempt.edits), gap_without, gap)
    attempt, result = _attempt(model, inputs, options, kept)
    if _gap(result, inputs, always=True) is not None:
        raise FuseError(
            f"The result for {type(model).__name__} differs from the model on the example inputs, whatever is folded, "
            "so nothing was changed. Try structure='module', and please report the model."
        )
    return attempt, result


@dataclass(frozen=True)
class Examples:
    """Example inputs, and what the model gives on them."""

    calls: list[Inputs]
    expected: list[Any]
    records: bool = True

    @staticmethod
    def of(model: nn.Module, example_inputs: Any) -> Examples:
        """Run the model."""
        calls = Inputs.calls_of(example_inputs)
        return Examples(calls, [reference(model, inputs) for inputs in calls])

    def amplify(self, model: nn.Module) -> bool:
        """Whether the model gives something else on inputs that differ by rounding."""
        return any(amplifies_rounding(model, *pair) for pair in zip(self.calls, self.expected, strict=True))


def _gap(result: nn.Module | ExportedProgram, inputs: Examples, *, always: bool = False) -> float | None:
    """Return the difference that is more than rounding, infinite where the result raises; None for none."""
    if not always and not Report.of(result):
        return None
    model = runnable(result)
    for call, expected in zip(inputs.calls, inputs.expected, strict=True):
        try:
            given = reference(model, call)
        except FuseError as error:
            if isinstance(error.__cause__, Exception) and out_of_memory(error.__cause__):
                raise
            return float("inf")
        if not agree(expected, given, [*model.parameters(), *model.buffers()]):
            return difference(expected, given)
    return None


def _attempt_or_less(
    model: nn.Module | ExportedProgram, inputs: Examples, options: Options
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Fold on a recorded run if need be; where that fails, for whatever reason, without it."""
    try:
        return _attempt(model, inputs, options, {})
    except FuseError:
        raise
    except Exception as error:
        if out_of_memory(error) or not inputs.records:
            raise
        note = f"The run on the example inputs could not be used ({sentence(error)}); the folds do without it."
        attempt, result = _attempt(model, replace(inputs, records=False), options, {})
        Report.of(result).noted(note).attach(result)
        return attempt, result


def _attempt(
    model: nn.Module | ExportedProgram, inputs: Examples | None, options: Options, kept: Mapping[nn.Module, Refusal]
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Fold, and again without what turns out to be impossible to write back."""
    while True:
        attempt = Attempt.of(_captured(model, inputs, options), options, kept)
        conflicts = attempt.conflicts
        if conflicts.keys() <= kept.keys():
            result = attempt.finish(decisive_arguments(attempt, options))
            by_class = result if attempt.structure == "module" and isinstance(result, nn.Module) else None
            conflicts = {} if by_class is None else unfaithful(attempt, by_class)
            if conflicts.keys() <= kept.keys():
                return attempt, result
        kept = {**conflicts, **kept}


def _captured(model: nn.Module | ExportedProgram, inputs: Examples | None, options: Options) -> Capture:
    """Capture the model; with inputs, only graphs that give on them what the model gives."""
    if isinstance(model, ExportedProgram):
        assert options.holder is not None  # noqa: S101 - made before
        return capture_program(model, options.holder)
    if isinstance(model, fx.GraphModule):
        captured = capture_graph(model, options.constants)
        for call in inputs.calls if inputs is not None else ():
            prove(captured, call)
        return captured
    if inputs is None:
        captured = capture(model)
        add_chains(captured)
        return captured
    passed, distrusted = inputs.calls[0].bound(model), set[nn.Module]()
    while True:
        captured = capture(model, passed, distrusted)
        if inputs.records and options.structure != "graph" and not captured.whole:
            return capture_runs(captured, inputs.calls, inputs.expected)
        found = [prove(captured, call) for call in inputs.calls]
        right, wrong = ([m for pair in found for m in pair[which]] for which in (0, 1))
        right = [module for module in right if module not in wrong]
        if distrusted.issuperset(wrong):
            parts = [replace(part, assumed="") if part.module in right else part for part in captured.parts]
            captured = replace(captured, parts=parts)
            add_chains(captured)
            return captured
        distrusted.update(wrong)


def put_into(model: fx.GraphModule, result: nn.Module | ExportedProgram) -> fx.GraphModule:
    """Give the argument the contents of the result; nothing here can fail half way."""
    assert isinstance(result, fx.GraphModule)  # noqa: S101 - the graph of a GraphModule is whole
    cls, before = type(model), dict(model.__dict__)
    compiled = {name: vars(cls)[name] for name in ("forward", "__call__") if name in vars(cls)}  # of this graph alone
    try:
        for name in ("_modules", "_parameters", "_buffers"):
            model.__dict__[name] = result.__dict__[name]
        model.graph = result.graph
        Report.of(result).attach(model)
    except BaseException:
        model.__dict__.clear()
        model.__dict__.update(before)
        for name, function in compiled.items():
            setattr(cls, name, function)
        raise
    return model
