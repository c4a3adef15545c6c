"""A pass from beginning to end: capture, run the rules, write back.

Each happens once. Example inputs may show that a capture or a fold was wrong; then it is done again without that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import fx, nn
from torch.export import ExportedProgram

from fxfuse.algebra.tape import Tape
from fxfuse.capture.capture import capture, capture_graph
from fxfuse.capture.check_on_inputs import prove
from fxfuse.capture.exported_program import capture_program, runnable
from fxfuse.capture.forward_arguments import Listed
from fxfuse.checkpoints.original import plan_between
from fxfuse.pipeline.attempt import apply_rules
from fxfuse.pipeline.bisect import culprits
from fxfuse.pipeline.examples import Examples
from fxfuse.pipeline.norm_kernels import tell_all
from fxfuse.pipeline.recorded import capture_runs
from fxfuse.pipeline.retrace import unfaithful
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.report.reasons import Reason
from fxfuse.report.report import Report
from fxfuse.write_back.held import frozen_by_objects, held_originals
from fxfuse.write_back.replacements import changed_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fxfuse.capture.captured import Capture
    from fxfuse.modules.example_inputs import Inputs
    from fxfuse.pipeline.attempt import Attempt
    from fxfuse.pipeline.options import Options
    from fxfuse.report.reasons import Refusal

    Fused: TypeAlias = tuple[Attempt, nn.Module | ExportedProgram]

LOG = logging.getLogger("fxfuse")


def fuse(model: nn.Module | ExportedProgram, example_inputs: Any, options: Options) -> Fused:
    """Return what was done, and the fused model; with example inputs, one that was compared with the model on them."""
    if example_inputs is None:
        return _fused(_captured(model, None, options), options)
    with _timed("run on the example inputs"):
        examples = Examples.of(runnable(model), example_inputs)
    captured = _captured(model, examples.calls, options)
    if not _must_be_watched(captured, options):
        return _compared(captured, options, examples)
    try:
        with _timed("watched on the example inputs"):
            runs = capture_runs(captured, examples.calls, examples.expected)
        watched = _compared(runs, options, examples)
    except Exception as error:
        if out_of_memory(error):
            raise
        why = f"The model could not be watched on the example inputs ({sentence(error)}), so the folds do without."
        return _noted(_unwatched(captured, options, examples), why)
    return watched if _norms_left(watched) == 0 else _with_fewest_norms_left(watched, captured, options, examples)


def _with_fewest_norms_left(watched: Fused, captured: Capture, options: Options, examples: Examples) -> Fused:
    """Return what folds without watching the model, if that leaves fewer norms; else what folds with it."""
    found, counted = watched, _counted(captured, options, examples) if examples.means else None  # no norm runs
    for other, why in ((captured, _BY_CODE), (counted, _BY_COUNT)):
        if other is None or _norms_left(_fused(other.copied(), options)) >= _norms_left(found):
            continue
        with contextlib.suppress(FuseError):  # it differs on the example inputs
            plain = _unwatched(other, options, examples)
            found = _noted(plain, why) if _norms_left(plain) < _norms_left(found) else found
    return found


_BY_CODE = (
    "By its code alone more of the model folds than by what it does on the example inputs, so the folds are those."
)
_BY_COUNT = "The graph holds for lists as long as those of the example inputs; another length raises."


def _counted(captured: Capture, options: Options, examples: Examples) -> Capture | None:
    """Return the model as a graph for lists as long as those of the example inputs, if that makes it one."""
    passed = examples.calls[0].bound(captured.model)
    listed = {name: Listed.of(value) for name, value in passed.items()}
    if options.structure is not None or not any(isinstance(value, Listed) for value in listed.values()):
        return None
    found = capture(captured.model, listed, hooks=options.hooks)
    return found if found.whole else None


def _unwatched(captured: Capture, options: Options, examples: Examples) -> Fused:
    """Return what folds by the code alone, with the example inputs to compare on."""
    return _compared(_proven(captured.model, captured, examples.calls, options), options, examples)


def _noted(fused: Fused, why: str) -> Fused:
    """Return the same, with a note in the report."""
    Report.of(fused[1]).noted(why).attach(fused[1])
    return fused


def _norms_left(fused: Fused) -> int:
    return sum(decision.reason is not Reason.NOT_CALLED for decision in Report.of(fused[1]).norms_left)


def _must_be_watched(captured: Capture, options: Options) -> bool:
    """Whether the model has to be watched: its code goes on running, and could not be traced as a whole."""
    given = captured.program is not None or isinstance(captured.model, fx.GraphModule)
    return not given and not captured.whole and options.structure != "graph"


def _compared(captured: Capture, options: Options, examples: Examples) -> Fused:
    """Fold, undo what makes a difference on the example inputs, and tell of every norm that runs on them."""
    attempt, result = _agreeing(captured, options, examples)
    tell_all(result, examples.means)
    return attempt, result


def _agreeing(captured: Capture, options: Options, examples: Examples) -> Fused:
    """Fold, and undo what makes a difference on the example inputs."""
    model = captured.model
    attempt, result = _fused(captured.copied(), options)
    with _timed("compared on the example inputs"):
        gap = examples.gap(result)
    if gap is None:
        return attempt, result
    if math.isfinite(gap) and examples.amplified():
        note = (
            f"The model amplifies rounding, so that a comparison on the example inputs (off by {gap:.1e}) says nothing."
        )
        return _noted((attempt, result), note)

    def gap_without(frozen_modules: Mapping[nn.Module, Refusal]) -> float | None:
        return examples.gap(_fused(captured.copied(), options, frozen_modules)[1])

    folds = [changed_modules(e.part, e.editor, plan) for e in attempt.edited for plan in e.editor.plans]
    attempt, result = _fused(captured, options, culprits(folds, gap_without, gap))
    if examples.gap(result, always=True) is not None:
        raise FuseError(
            f"The result for {type(model).__name__} differs from the model on the example inputs, whatever is folded, "
            "so nothing was changed. Try structure='module', and please report the model."
        )
    return attempt, result


def _fused(captured: Capture, options: Options, frozen_modules: Mapping[nn.Module, Refusal] | None = None) -> Fused:
    """Run the rules over what was captured, and return what they did, and what comes of it."""
    constants = captured.constants
    bound = frozen_by_objects(captured.model) if captured.opaque else None
    frozen = {**(bound or {}), **(frozen_modules or {})}
    with Tape() as tape, _timed("rules applied"):
        attempt = apply_rules(captured, options, frozen)
    with _timed("written back"):
        if attempt.replaced:
            bound = frozen_by_objects(captured.model) if bound is None else bound
            attempt = attempt.without(unfaithful(attempt, bound))
        result = attempt.finish()
    held = held_originals(captured.paths, result) if attempt.structure == "module" else {}
    for path in dict.fromkeys(held.values()):
        why = f"An object in the attribute {path} goes on using modules of the argument, so the result cannot refold."
        _noted((attempt, result), why)
    plan = None if held else plan_between(tape, captured.program or captured.model, result, constants)
    if plan is not None:
        replace(Report.of(result), plan=plan).attach(result)
    return attempt, result


@contextlib.contextmanager
def _timed(stage: str) -> Iterator[None]:
    """Log how long a stage takes."""
    start = time.perf_counter()
    yield
    LOG.info("%s in %.3f s", stage, time.perf_counter() - start)


def _captured(model: nn.Module | ExportedProgram, calls: list[Inputs] | None, options: Options) -> Capture:
    """Capture the model, and log how."""
    with _timed(f"{type(model).__name__}: captured"):
        captured = _graphs(model, calls, options)
    sizes = [len(part.graph_module.graph.nodes) for part in captured.parts]
    LOG.info("graphs: %d, of %d nodes; modules that run as they are: %d", len(sizes), sum(sizes), len(captured.opaque))
    for module, why in captured.opaque.items():
        LOG.info("not traced: %s (%s)", captured.paths[module] or type(module).__name__, why)
    return captured


def _graphs(model: nn.Module | ExportedProgram, calls: list[Inputs] | None, options: Options) -> Capture:
    """Capture the model; with inputs, only graphs that give on them what the model gives."""
    if isinstance(model, ExportedProgram):
        return capture_program(model)
    if isinstance(model, fx.GraphModule):
        captured = capture_graph(model, options.constants, options.hooks)
        for call in calls or ():
            prove(captured, call)
        return captured
    if calls is None:
        return capture(model, hooks=options.hooks)
    captured = capture(model, calls[0].bound(model), hooks=options.hooks)
    return captured if _must_be_watched(captured, options) else _proven(captured.model, captured, calls, options)


def _proven(model: nn.Module, captured: Capture, calls: list[Inputs], options: Options) -> Capture:
    """Return what was captured, but for graphs that do not give on the example inputs what their module gives."""
    wrongly_traced = set[nn.Module]()
    while True:
        found = [prove(captured, call) for call in calls]
        wrong = {module for pair in found for module in pair[1]}
        right = {module for pair in found for module in pair[0]} - wrong
        if wrongly_traced.issuperset(wrong):
            parts = [replace(part, assumed="") if part.module in right else part for part in captured.parts]
            return replace(captured, parts=parts, given=True)
        wrongly_traced.update(wrong)
        captured = capture(model, calls[0].bound(model), wrongly_traced, options.hooks)


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
