"""A pass from beginning to end: capture, rules, result, and whatever has to be undone on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.export import ExportedProgram

from fxfuse.capture.capture import Capture, capture, capture_graph
from fxfuse.capture.check_on_inputs import prove
from fxfuse.capture.exported_program import capture_program, holder_of_program, runnable
from fxfuse.modules.example_inputs import Inputs, agree, difference, reference
from fxfuse.pipeline.attempt import Attempt
from fxfuse.pipeline.bisect import culprits
from fxfuse.pipeline.default_arguments import decisive_arguments
from fxfuse.pipeline.retrace import unfaithful
from fxfuse.report.errors import FuseError, out_of_memory
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
    inputs = Inputs.of(example_inputs)
    expected = reference(runnable(model), inputs)
    attempt, result = _attempt(model, inputs, options, {})
    gap = _gap(expected, result, inputs)
    if gap is None:
        return attempt, result

    def gap_without(kept: Mapping[nn.Module, Refusal]) -> float | None:
        return _gap(expected, _attempt(model, inputs, options, kept)[1], inputs)

    kept = culprits(folded_modules(attempt.edits), gap_without, gap)
    attempt, result = _attempt(model, inputs, options, kept)
    if _gap(expected, result, inputs, always=True) is not None:
        raise FuseError(
            f"The result for {type(model).__name__} differs from the model on the example inputs, whatever is folded, "
            "so nothing was changed. Try structure='module', and please report the model."
        )
    return attempt, result


def _gap(expected: Any, result: nn.Module | ExportedProgram, inputs: Inputs, *, always: bool = False) -> float | None:
    """Return the difference that is more than rounding, infinite where the result raises; None for none."""
    if not always and not Report.of(result):
        return None
    model = runnable(result)
    try:
        given = reference(model, inputs)
    except FuseError as error:
        if isinstance(error.__cause__, Exception) and out_of_memory(error.__cause__):
            raise
        return float("inf")
    same = agree(expected, given, [*model.parameters(), *model.buffers()])
    return None if same else difference(expected, given)


def _attempt(
    model: nn.Module | ExportedProgram, inputs: Inputs | None, options: Options, kept: Mapping[nn.Module, Refusal]
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


def _captured(model: nn.Module | ExportedProgram, inputs: Inputs | None, options: Options) -> Capture:
    """Capture the model; with inputs, only graphs that give on them what the model gives."""
    if isinstance(model, ExportedProgram):
        assert options.holder is not None  # noqa: S101 - made before
        return capture_program(model, options.holder)
    if isinstance(model, fx.GraphModule):
        captured = capture_graph(model, options.constants, options.hooks)
        if inputs is not None:
            prove(captured, inputs)
        return captured
    if inputs is None:
        return capture(model, hooks=options.hooks)
    passed, distrusted = inputs.bound(model), set[nn.Module]()
    while True:
        captured = capture(model, passed, distrusted, options.hooks)
        right, wrong = prove(captured, inputs)
        if distrusted.issuperset(wrong):
            parts = [replace(part, assumed="") if part.module in right else part for part in captured.parts]
            return replace(captured, parts=parts, given=True)
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
