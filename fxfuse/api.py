"""The functions that users call: capture the model, run the rules, bring the result back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import fx, nn

from fxfuse.capture import Capture, Part, capture, capture_graph
from fxfuse.checks import require_fusable
from fxfuse.editor import Editor
from fxfuse.engine import run
from fxfuse.finish import into_graph_module, into_modules, left_over
from fxfuse.graph import Graph
from fxfuse.report import Decision, FuseError, Report
from fxfuse.rules import DEFAULT_RULES, Rule
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.write_back import Replacements, replacements

if TYPE_CHECKING:
    from collections.abc import Iterable

M = TypeVar("M", bound=nn.Module)
Structure = Literal["graph", "module"]


@dataclass(frozen=True)
class _Options:
    rules: tuple[Rule, ...]
    structure: Structure | None
    allow_copies: bool
    guards: bool


def fx_fuse(
    model: nn.Module,
    example_inputs: Any = None,  # noqa: ANN401 - whatever the model takes
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
    options = _Options(tuple(rules), structure, allow_copies, guards)
    require_fusable(model, structure, inplace=inplace)
    result = _fuse(model, example_inputs, options)
    if inplace:
        return _in_place(model, result)
    return result


def explain(model: nn.Module, example_inputs: Any = None, **options: Any) -> Report:  # noqa: ANN401 - as fx_fuse
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


def _fuse(model: nn.Module, example_inputs: Any, options: _Options) -> nn.Module:  # noqa: ANN401
    captured = capture_graph(model) if isinstance(model, fx.GraphModule) else capture(model)
    structure = options.structure or ("graph" if captured.whole else "module")
    if structure == "graph" and captured.root is None:
        raise FuseError(
            f"{type(model).__name__} cannot be traced as a whole ({captured.opaque[model]}), so structure='graph' "
            "is not possible; nothing was changed. Leave structure out, or pass structure='module'."
        )
    kept = set(captured.kept)
    while True:
        edits, decisions = _run(captured, structure, options, kept)
        inner = [(part, editor) for part, editor in edits if structure == "module" or part.path]
        replaced = replacements(inner)
        if not replaced.conflicts - kept:
            break
        kept |= replaced.conflicts
        captured = capture(model)
    return _finish(captured, structure, edits, decisions, replaced)


def _run(
    captured: Capture, structure: Structure, options: _Options, kept: set[nn.Module]
) -> tuple[list[tuple[Part, Editor]], list[Decision]]:
    edits, decisions = [], []
    for part in captured.parts:
        as_graph = structure == "graph" and not part.path
        rules = [rule for rule in options.rules if as_graph or rule is not drop_noops]
        graph = Graph(
            part.graph_module,
            part.path,
            root=part.module,
            kept=kept,
            allow_copies=options.allow_copies,
            guards=options.guards,
        )
        editor = Editor(graph)
        found = run(editor, rules)
        if part.assumed:
            found = [replace(d, assumed=True, detail=d.detail or part.assumed) if d.folded else d for d in found]
        decisions += found
        edits.append((part, editor))
    return edits, decisions


def _finish(
    captured: Capture,
    structure: Structure,
    edits: list[tuple[Part, Editor]],
    decisions: list[Decision],
    replaced: Replacements,
) -> nn.Module:
    decisions = [*decisions, *left_over(captured, decisions)]
    if structure == "graph":
        return into_graph_module(captured, edits[0][1], decisions, replaced)
    return into_modules(captured, decisions, replaced)


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
