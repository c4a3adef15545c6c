"""A pass from beginning to end: capture once, run the rules once, write back once.

Only example inputs can show that something has to be undone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.export import ExportedProgram

from fxfuse.capture.capture import Capture, capture, capture_graph
from fxfuse.capture.chains import add_chains
from fxfuse.capture.check_on_inputs import prove
from fxfuse.capture.exported_program import capture_program, runnable
from fxfuse.modules.example_inputs import Inputs, agree, difference, reference
from fxfuse.pipeline.attempt import apply_rules
from fxfuse.pipeline.bisect import culprits
from fxfuse.pipeline.retrace import unfaithful
from fxfuse.report.errors import FuseError, out_of_memory
from fxfuse.report.report import Report
from fxfuse.write_back.replacements import changed_modules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.pipeline.attempt import Attempt
    from fxfuse.pipeline.options import Options
    from fxfuse.report.reasons import Refusal


def fuse(
    model: nn.Module | ExportedProgram, example_inputs: Any, options: Options
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Return what was done, and the fused model; with example inputs, one that was compared with the model on them."""
    if example_inputs is None:
        return _fused(_captured(model, None, options), options)
    inputs = Inputs.of(example_inputs)
    expected = reference(runnable(model), inputs)
    captured = _captured(model, inputs, options)
    attempt, result = _fused(captured.copied(), options)
    gap = _gap(expected, result, inputs)
    if gap is None:
        return attempt, result

    def gap_without(frozen_modules: Mapping[nn.Module, Refusal]) -> float | None:
        return _gap(expected, _fused(captured.copied(), options, frozen_modules)[1], inputs)

    folds = [changed_modules(e.part, e.editor, plan) for e in attempt.edited for plan in e.editor.plans]
    attempt, result = _fused(captured, options, culprits(folds, gap_without, gap))
    if _gap(expected, result, inputs, always=True) is not None:
        raise FuseError(
            f"The result for {type(model).__name__} differs from the model on the example inputs, whatever is folded, "
            "so nothing was changed. Try structure='module', and please report the model."
        )
    return attempt, result


def _fused(
    captured: Capture, options: Options, frozen_modules: Mapping[nn.Module, Refusal] | None = None
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Run the rules over what was captured, and return what they did, and what comes of it."""
    attempt = apply_rules(captured, options, frozen_modules or {})
    if attempt.replaced:
        attempt = attempt.without(unfaithful(attempt))
    return attempt, attempt.finish()


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


def _captured(model: nn.Module | ExportedProgram, inputs: Inputs | None, options: Options) -> Capture:
    """Capture the model; with inputs, only graphs that give on them what the model gives."""
    if isinstance(model, ExportedProgram):
        return capture_program(model)
    if isinstance(model, fx.GraphModule):
        captured = capture_graph(model, options.constants)
        if inputs is not None:
            prove(captured, inputs)
        return captured
    if inputs is None:
        captured = capture(model)
        if captured.read:
            add_chains(captured)
        return captured
    passed, distrusted = inputs.bound(model), set[nn.Module]()
    while True:
        captured = capture(model, passed, distrusted)
        right, wrong = prove(captured, inputs)
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
