"""The last step: the object that comes back, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.capture.lifted import release
from fxfuse.modules.derived_class import with_check
from fxfuse.modules.lookup import fetch, is_norm, paths_below
from fxfuse.report.reasons import PASS_INPUTS, Reason
from fxfuse.report.report import Decision, Report
from fxfuse.write_back.copies import SeparateOnConversion, copies_of
from fxfuse.write_back.exported_program import rebuilt
from fxfuse.write_back.graph_module import FusedGraphModule
from fxfuse.write_back.module_calls import place_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram

    from fxfuse.capture.capture import Capture
    from fxfuse.edit.editor import Editor
    from fxfuse.write_back.replacements import Replacements


def left_over(captured: Capture, decisions: list[Decision]) -> Iterator[Decision]:
    """Yield a decision for every norm of the model that no graph contains."""
    told = {decision.path for decision in decisions}
    if captured.root is not None:
        told.add("")  # the model itself, of which the graph tells everything
    for module, path in captured.paths.items():
        if not is_norm(module) or path in told or any(t.startswith(path + ".") for t in told if path):
            continue
        reason, sentence = _why_not_captured(captured, module, path)
        yield Decision("capture", path, type(module).__name__, (), reason, sentence)


def _why_not_captured(captured: Capture, module: nn.Module, path: str) -> tuple[Reason, str]:
    """Return why no graph contains a norm, as a sentence too."""
    kept, caller = captured.kept.get(module), _opaque_parent(captured, path)
    if kept is not None and kept.reason is Reason.HOOKED:
        return kept.reason, str(kept)
    if caller is None:
        return Reason.NOT_CALLED, Reason.NOT_CALLED.sentence()
    name, why = caller
    advice = "" if captured.given else PASS_INPUTS
    return Reason.OPAQUE, Reason.OPAQUE.sentence(value=name or type(captured.model).__name__, detail=why, advice=advice)


def _opaque_parent(captured: Capture, path: str) -> tuple[str, str] | None:
    """Return the nearest module around a path of which the forward was not captured, and why not."""
    captured_paths = {part.path for part in captured.parts}
    opaque = {captured.paths[module]: why for module, why in captured.opaque.items()}
    inside = path
    while inside not in opaque:
        if inside in captured_paths or not inside:
            return None
        inside = inside.rpartition(".")[0]
    return inside, opaque[inside]


def into_graph_module(
    captured: Capture, editor: Editor, decisions: list[Decision], replaced: Replacements, *, inplace: bool
) -> FusedGraphModule:
    """Return the edited graph as a GraphModule that keeps what it can of the model.

    Args:
        captured: what was captured.
        editor: the edits of the whole model's graph.
        decisions: what the rules decided.
        replaced: new versions of modules that stand in the graph as one node.
        inplace: share the modules and Parameter objects of the argument, of which the result will take the place.
    """
    model, graph_module = captured.model, editor.graph_module
    release(graph_module, captured.placeholders, captured.lifted)
    place_modules(editor, model, replaced.modules, inplace=inplace)
    editor.drop_dead()
    graph_module.graph.lint()
    name = type(model).__name__
    result = FusedGraphModule.of(graph_module, name)
    result.training = model.training
    _copy_modes(model, result)
    lost = result._keep(model)
    notes: list[str] = []
    if lost:
        some = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        notes.append(
            f"Methods that a graph cannot keep, since they use the model's modules: {some}; "
            "structure='module' keeps the class with all of them."
        )
    meta = getattr(model, "meta", None)
    if isinstance(meta, dict):
        result.meta = dict(meta)
    Report(tuple(decisions), "graph", tuple(notes), editor.renamed).attach(result)
    return result


def into_program(captured: Capture, editor: Editor, decisions: list[Decision]) -> ExportedProgram:
    """Return the program with the edited graph, checked by torch's verifier."""
    assert captured.program is not None  # noqa: S101 - that is why this is called
    editor.drop_dead()
    editor.graph_module.graph.lint()
    result = rebuilt(captured.program, editor.graph_module)
    Report(tuple(decisions), "graph", (), editor.renamed).attach(result.graph_module)
    return result


def _copy_modes(model: nn.Module, result: fx.GraphModule) -> None:
    """Give the empty holders of the GraphModule the mode of the modules whose place they take."""
    for module, path in paths_below(result).items():
        if type(module) is nn.Module and path:
            try:
                module.training = bool(fetch(model, path).training)
            except AttributeError:
                module.training = model.training


def into_modules(
    captured: Capture, decisions: list[Decision], replaced: Replacements, expected: Mapping[str, Any]
) -> nn.Module:
    """Return a model of the same class with the replacements in their places."""
    result = copies_of(captured.model, replaced.modules)[captured.model]
    notes: list[str] = []
    if expected:
        result = with_check(result, dict(expected))
        calls = ", ".join(f"{name}={value!r}" for name, value in expected.items())
        notes.append(f"The folds hold for calls with {calls}; other calls raise.")
    result.__dict__["_apply"] = SeparateOnConversion(result)
    Report(tuple(decisions), "module", tuple(notes)).attach(result)
    return result
