"""The functions that users call: capture the model, run the rules, bring the result back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from fxfuse.attempt import Attempt, Options, Structure
from fxfuse.capture import Capture, capture, capture_graph
from fxfuse.checks import checked_rules, require_fusable
from fxfuse.examples import Inputs, agree, difference, reference
from fxfuse.export_capture import add_exported
from fxfuse.faithful import unfaithful
from fxfuse.optional_arguments import decisive_arguments
from fxfuse.prove import prove
from fxfuse.report import FuseError, Refusal, Report
from fxfuse.rules import DEFAULT_RULES, Rule
from fxfuse.state import sentence
from fxfuse.undo import culprits, folded_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def fx_fuse(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    rules: Iterable[Rule] = DEFAULT_RULES,
    structure: Structure | None = None,
    allow_copies: bool = True,
    guards: bool = True,
    inplace: bool = False,
) -> nn.Module:
    """Fold batch norms, and other constant scales and shifts, into the convolutions and linears around them.

    The model is not modified.  Layers in training mode are left alone.  Weights that are not folded are shared
    with the argument.  What was done, and why the rest was not, is in ``Report.of(result)``.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> [name for name, _ in fx_fuse(model.eval()).named_children()]
        ['0', '2']

    Args:
        model: a module, traceable as a whole or not, or a ``GraphModule``.
        example_inputs: what the model is called with: a tensor, a tuple of positional arguments, or a dict of
            keyword arguments.  Proves shapes, checks the capture and the result, and lets ``torch.export`` capture
            what symbolic tracing cannot.
        rules: the rules to apply, of ``fxfuse.rules.DEFAULT_RULES``.
        structure: ``"graph"`` for a ``GraphModule``; ``"module"`` for a model of the same class, with its
            attributes and methods.  By default a graph if the model can be traced as a whole, else modules.
        allow_copies: give a call that shares its weights with others a copy of its own; False refuses such folds.
        guards: allow folds that rest on inputs being batched, and leave a check in the model; False refuses them.
        inplace: change the ``GraphModule`` that is given, all of it or, if anything fails, nothing.

    Returns:
        A ``GraphModule``, or a model of the same class.

    Raises:
        FuseError: if the model or the inputs cannot be used; nothing is changed then.
    """
    options = Options(checked_rules(rules), structure, allow_copies, guards, inplace)
    require_fusable(model, structure, inplace=inplace)
    try:
        result = _fuse(model, example_inputs, options)
    except (FuseError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise FuseError(
            f"{type(model).__name__} could not be fused ({sentence(error)}); nothing was changed. This is a fault of "
            "fxfuse: please report it with the model; leaving out a part of the model may help until then."
        ) from error
    return _in_place(model, result) if inplace else result


def explain(model: nn.Module, example_inputs: Any = None, **options: Any) -> Report:
    """Say what ``fx_fuse`` would do, and why it would leave the rest.

    Example:
        >>> import torch
        >>> from fxfuse import explain
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.BatchNorm2d(8))
        >>> explain(model.eval()).skipped[0].reason.name
        'NOT_LINEAR'

    Args:
        model: as for ``fx_fuse``.
        example_inputs: as for ``fx_fuse``.
        options: the other options of ``fx_fuse``.

    Raises:
        FuseError: if the model or the inputs cannot be used.
    """
    return Report.of(fx_fuse(model, example_inputs, **options))


def _fuse(model: nn.Module, example_inputs: Any, options: Options) -> nn.Module:
    if example_inputs is None:
        return _attempt(model, None, options, {})[1]
    inputs = Inputs.of(example_inputs)
    expected = reference(model, inputs)
    attempt, result = _attempt(model, inputs, options, {})
    gap = _gap(expected, result, inputs)
    if gap is None:
        return result

    def gap_without(kept: Mapping[nn.Module, Refusal]) -> float | None:
        return _gap(expected, _attempt(model, inputs, options, kept)[1], inputs)

    kept = culprits(folded_modules(attempt.edits), gap_without, gap)
    result = _attempt(model, inputs, options, kept)[1]
    if _gap(expected, result, inputs, always=True) is not None:
        raise FuseError(
            f"The result for {type(model).__name__} differs from the model on the example inputs, whatever is folded, "
            "so nothing was changed. Try structure='module', and please report the model."
        )
    return result


def _gap(expected: Any, result: nn.Module, inputs: Inputs, *, always: bool = False) -> float | None:
    """Return the difference that is more than rounding, infinite where the result raises; None for none."""
    if not always and not Report.of(result):
        return None
    try:
        given = reference(result, inputs)
    except FuseError:
        return float("inf")
    return None if agree(expected, given) else difference(expected, given)


def _attempt(
    model: nn.Module, inputs: Inputs | None, options: Options, kept: Mapping[nn.Module, Refusal]
) -> tuple[Attempt, nn.Module]:
    """Fold, and again without what turns out to be impossible to write back."""
    while True:
        attempt = Attempt.of(_captured(model, inputs), options, kept)
        conflicts = attempt.conflicts
        if conflicts.keys() <= kept.keys():
            result = attempt.finish(decisive_arguments(attempt, options))
            conflicts = unfaithful(attempt, result) if attempt.structure == "module" else {}
            if conflicts.keys() <= kept.keys():
                return attempt, result
        kept = {**conflicts, **kept}


def _captured(model: nn.Module, inputs: Inputs | None) -> Capture:
    """Capture the model; with inputs, only graphs that give on them what the model gives."""
    if isinstance(model, fx.GraphModule):
        captured = capture_graph(model)
        if inputs is not None:
            prove(captured, inputs)
        return captured
    if inputs is None:
        return capture(model)
    passed, distrusted = inputs.bound(model), set[nn.Module]()
    while True:
        captured = capture(model, passed, distrusted)
        right, wrong = prove(captured, inputs)
        if distrusted.issuperset(wrong):
            parts = [replace(part, assumed="") if part.module in right else part for part in captured.parts]
            captured = replace(captured, parts=parts, exampled=True)
            add_exported(captured, inputs)
            return captured
        distrusted.update(wrong)


def _in_place(model: nn.Module, result: nn.Module) -> nn.Module:
    """Give the argument the contents of the result; nothing here can fail half way."""
    assert isinstance(model, fx.GraphModule)  # noqa: S101 - checked before
    assert isinstance(result, fx.GraphModule)  # noqa: S101 - the graph of a GraphModule is whole
    before = dict(model.__dict__)
    try:
        for name in ("_modules", "_parameters", "_buffers"):
            model.__dict__[name] = result.__dict__[name]
        model.graph = result.graph
        Report.of(result).attach(model)
    except BaseException:
        model.__dict__.clear()
        model.__dict__.update(before)
        model.recompile()
        raise
    return model
