"""The last step: the object that comes back, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.capture.lifted import attributes_as_inputs
from fxfuse.edit.storage import paths_above
from fxfuse.graph.nodes import UNTRACED
from fxfuse.graph.registry import operator_of
from fxfuse.modules.derived_class import with_change, with_check
from fxfuse.modules.handing import Closing
from fxfuse.modules.lookup import fetch, holds, is_norm, paths_below, shallow_copy
from fxfuse.modules.origin import runs_compiled
from fxfuse.report.decision import Decision
from fxfuse.report.reasons import PASS_INPUTS, Reason
from fxfuse.report.report import Report
from fxfuse.write_back.copies import SeparateOnConversion, copies_of
from fxfuse.write_back.exported_program import rebuilt
from fxfuse.write_back.graph_module import FusedGraphModule
from fxfuse.write_back.hidden_norms import norms_in_other_graphs, norms_in_plain_objects
from fxfuse.write_back.regions import put_back_regions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch.export import ExportedProgram

    from fxfuse.capture.captured import Capture, Part
    from fxfuse.edit.editor import Editor


def left_over(captured: Capture, decisions: list[Decision], editors: Iterable[Editor]) -> Iterator[Decision]:
    """Yield a decision for every norm of the model that no graph contains, by itself or as a function."""
    told = {decision.path for decision in decisions}
    for editor in editors:
        reads = [node for node in editor.origin if node.op == "get_attr" and UNTRACED not in node.meta]
        targets = [str(editor.origin[node].target) for node in reads]
        read = map(editor.graph.in_model, targets)
        told |= {path.rpartition(".")[0] for path in read if path.endswith(".running_mean")}
    if captured.root is not None:
        told.add("")  # the model itself, of which the graph tells everything
    for module, path in captured.paths.items():
        if not is_norm(module) or path in told or any(t.startswith(path + ".") for t in told if path):
            continue
        reason, sentence = _why_not_captured(captured, module, path)
        yield Decision("capture", path, type(module).__name__, (), reason, sentence)
    if captured.opaque:
        yield from norms_in_plain_objects(captured)
    if any(isinstance(module, fx.GraphModule) for module in captured.paths if module is not captured.model):
        yield from norms_in_other_graphs(captured)


def _why_not_captured(captured: Capture, module: nn.Module, path: str) -> tuple[Reason, str]:
    """Return why no graph contains a norm, as a sentence too."""
    frozen, caller = captured.frozen.get(module), captured.opaque_parent(path)
    if frozen is not None and frozen.reason is Reason.HOOKED:
        return frozen.reason, str(frozen)
    if caller is None and module is captured.model:
        return Reason.NOT_LINEAR, Reason.NOT_LINEAR.sentence(value="the input")
    if caller is None:
        return Reason.NOT_CALLED, Reason.NOT_CALLED.sentence()
    name, why = caller
    facts = {"value": name or type(captured.model).__name__, "detail": why}
    return Reason.OPAQUE, Reason.OPAQUE.sentence(**facts, advice="" if captured.given else PASS_INPUTS)


def into_graph_module(
    captured: Capture,
    editor: Editor,
    decisions: list[Decision],
    replaced: Mapping[nn.Module, nn.Module],
    *,
    inplace: bool,
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
    if captured.lifted:  # what was folded stays an attribute
        unchanged = {path for path, tensor in captured.lifted.items() if holds(graph_module, path, tensor)}
        names = {path: name for path, name in captured.placeholders.items() if path in unchanged}
        attributes_as_inputs(graph_module.graph, names)
    _place_modules(editor, model, replaced, inplace=inplace)
    editor.drop_dead()
    graph_module.graph.lint()
    name = type(model).__name__
    result = FusedGraphModule.of(graph_module, name)
    result.training = model.training
    _copy_modes(model, result)
    lost = result._carry_over(model)
    notes = _of_compiled(captured, captured.paths)
    if lost:
        notes.append(
            f"Methods that a graph cannot keep, since they use the model's modules: {_some(lost)}; "
            "structure='module' keeps the class with all of them."
        )
    meta = getattr(model, "meta", None)
    if isinstance(meta, dict):
        result.meta = dict(meta)
    Report(tuple(decisions), "graph", tuple(notes), editor.renamed).attach(result)
    return result


def into_program(captured: Capture, edits: list[tuple[Part, Editor]], decisions: list[Decision]) -> ExportedProgram:
    """Return the program with the edited graphs, checked by torch's verifier."""
    assert captured.program is not None  # noqa: S101 - that is why this is called
    for _, inner in edits:
        inner.drop_dead()
        inner.graph_module.graph.lint()
    put_back_regions(edits)
    editor = edits[0][1]
    result = rebuilt(captured.program, editor.graph_module)
    Report(tuple(decisions), "graph", (), editor.renamed).attach(result.graph_module)
    return result


def _of_compiled(captured: Capture, plain: Iterable[nn.Module]) -> list[str]:
    """Return what to tell of modules that are no longer compiled: a note, or none.

    Args:
        captured: what was captured.
        plain: the modules of which nothing in the result is compiled.
    """
    paths = [captured.paths[module] or type(module).__name__ for module in plain if runs_compiled(module)]
    if not paths:
        return []
    return [f"Compiled in the argument, and as written in the result: {_some(paths)}; compile the result."]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _copy_modes(model: nn.Module, result: fx.GraphModule) -> None:
    """Give the empty holders of the GraphModule the mode of the modules whose place they take."""
    for module, path in paths_below(result).items():
        if type(module) is nn.Module and path:
            try:
                module.training = bool(fetch(model, path).training)
            except AttributeError:
                module.training = model.training


def into_modules(
    captured: Capture,
    decisions: list[Decision],
    replaced: Mapping[nn.Module, nn.Module],
    expected: Mapping[str, Any],
    *,
    closes: bool = False,
) -> nn.Module:
    """Return a model of the same class with the replacements in their places.

    Args:
        captured: what was captured.
        decisions: what the rules decided.
        replaced: what takes the place of which module.
        expected: arguments that the result must be called with.
        closes: the result checks that nothing leaves it which one of its modules has to take.
    """
    model = captured.model
    root = replaced.get(model) or shallow_copy(model)
    root = with_change(root, Closing()) if closes else root
    root = with_check(root, dict(expected)) if expected else root
    copies = copies_of(model, {**replaced, model: root})  # with the root, to which attributes may be bound
    result, notes = copies[model], _of_compiled(captured, [m for m, copy in copies.items() if not runs_compiled(copy)])
    if expected:
        calls = ", ".join(f"{name}={value!r}" for name, value in expected.items())
        notes.append(f"The folds hold for calls with {calls}; other calls raise.")
    result.__dict__["_apply"] = SeparateOnConversion(result)
    Report(tuple(decisions), "module", tuple(notes)).attach(result)
    return result


# -- the modules that the nodes of a graph call: copies, so that neither side changes with the other


def _place_modules(editor: Editor, model: nn.Module, replaced: Mapping[nn.Module, nn.Module], *, inplace: bool) -> None:
    """Let the nodes of a graph call modules of its own.

    A module that stands in the graph as one node has the new versions of what is below; a layer that the graph calls
    by itself is as it was, also where it is part of such a module.

    Args:
        editor: the edits of the graph.
        model: the model that was captured.
        replaced: modules that changed within others -> what takes their place.
        inplace: share the modules that did not change.
    """
    calls = {node: module for node in editor.graph.nodes if (module := editor.graph.module(node)) is not None}
    whole = {module for module in calls.values() if operator_of(module) is None}
    if inplace:
        whole = {module for module in whole if not replaced.keys().isdisjoint(module.modules())}
    made = copies_of(model, replaced, whole) if whole else {}
    blocks = {module: made[module] for module in whole if module in made}
    layers = [] if inplace else [module for module in calls.values() if module not in whole]
    copies = {**(copies_of(model, {}, layers) if layers else {}), **blocks}
    new = {str(node.target): blocks[module] for node, module in calls.items() if module in blocks}
    _keep_tensors(editor, new)
    apart: dict[str, str] = {}
    for node, module in calls.items():
        target = str(node.target)
        if target in apart:
            editor.storage.retarget(node, apart[target])
        elif any(path in new for path in paths_above(target)):
            editor.storage.place_module(node, copies.get(module, module))
            apart[target] = str(node.target)
        elif module in copies:
            editor.graph.place(target, copies[module])


def _keep_tensors(editor: Editor, new: Mapping[str, nn.Module]) -> None:
    """Let nodes that read a tensor of a module by name read the same one when another module takes its place.

    Args:
        editor: the edits of the graph.
        new: the paths of modules -> what comes there.
    """
    for node in [node for node in editor.graph.nodes if node.op == "get_attr"]:
        target = str(node.target)
        tensor = fetch(editor.graph_module, target)
        holders = [path for path in paths_above(target) if path in new]
        if holders and not holds(new[holders[-1]], target.removeprefix(f"{holders[-1]}."), tensor):
            editor.storage.retarget(node, editor.storage.store(target, tensor))
