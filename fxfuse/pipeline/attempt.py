"""One run of the rules over everything that was captured of a model."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from fxfuse.capture.forward_arguments import asks_what_it_gets
from fxfuse.edit.editor import Editor
from fxfuse.graph.graph import Graph
from fxfuse.graph.plan import Merge, Plan
from fxfuse.modules.lookup import is_hooked
from fxfuse.pipeline.engine import run
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.write_back.checks import Link, with_checks
from fxfuse.write_back.other_methods import OtherMethods
from fxfuse.write_back.recorded import RecordedVetoes
from fxfuse.write_back.replacements import Calls, changed_modules
from fxfuse.write_back.result import into_graph_module, into_modules, into_program, left_over
from fxfuse.write_back.vetoes import Vetoes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch.export import ExportedProgram

    from fxfuse.capture.captured import Capture, Part
    from fxfuse.pipeline.options import Options, Structure
    from fxfuse.report.decision import Decision


@dataclass(frozen=True, eq=False)
class Edited:
    """What the rules did to one captured graph.

    Attributes:
        part: what was captured.
        editor: the edits of its graph.
        decisions: what the rules decided.
        replaced: a module of the user's -> what takes its place; empty where the graph itself is the result.
        unwritten: the edits could not be written back, so the modules stay as they are.
        links: what has to be checked whenever the result runs, since it rests on a recorded run.
    """

    part: Part
    editor: Editor
    decisions: list[Decision]
    replaced: Mapping[nn.Module, nn.Module] = field(default_factory=dict)
    unwritten: bool = False
    links: Collection[Link] = ()

    @property
    def changed(self) -> set[nn.Module]:
        """The modules of the user's that the edits change."""
        return {m for plan in self.editor.plans for m in changed_modules(self.part, self.editor, plan)}

    def undone(self) -> Edited:
        """Return the same with the user's modules as they are, and refusals in place of folds."""
        decisions = [_undone(decision) if decision.folded else decision for decision in self.decisions]
        return replace(self, decisions=decisions, replaced={}, unwritten=True, links=())


def _undone(decision: Decision) -> Decision:
    told = Reason.OWN_FORWARD.sentence(value=", ".join(sorted({decision.path, *decision.into})))
    reason = {"reason": Reason.OWN_FORWARD, "detail": told, "into": ()}
    return replace(decision, **reason, assumed=False, copied_bytes=0, before=None, after=None)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Attempt:
    """The edits of all graphs, and what they mean for the modules of the model.

    Attributes:
        captured: what they were made on.
        structure: the kind of object that will come back.
        edited: what became of each captured graph.
        inplace: whether the result will take the place of the argument.
        guards: whether checks may stay in the model.
    """

    captured: Capture
    structure: Structure
    edited: list[Edited]
    inplace: bool = False
    guards: bool = True

    @property
    def edits(self) -> list[tuple[Part, Editor]]:
        """The graphs with the edits that are in the result."""
        return [(edited.part, edited.editor) for edited in self.edited if not edited.unwritten]

    @property
    def decisions(self) -> list[Decision]:
        """What the rules decided, in the order of the model, and of every norm that no graph contains."""
        found = [decision for edited in self.edited for decision in edited.decisions]
        found += left_over(self.captured, list(found), [edited.editor for edited in self.edited])
        paths = {path: number for number, path in enumerate(self.captured.paths.values())}
        return sorted(found, key=lambda decision: paths.get(decision.path, len(paths)))

    @property
    def replaced(self) -> dict[nn.Module, nn.Module]:
        """The modules of the user's that change, each with what takes its place."""
        return {module: new for edited in self.edited for module, new in edited.replaced.items()}

    def without(self, wrong: Collection[Edited]) -> Attempt:
        """Return the same with some edits undone, and those that share modules with them."""
        if not wrong:
            return self
        undone, changed = set[Edited](), set[nn.Module]()
        while more := {e for e in self.edited if e not in undone and (e in wrong or e.changed & changed)}:
            undone |= more
            changed = {module for edited in undone for module in edited.changed}
        return replace(self, edited=[e.undone() if e in undone else e for e in self.edited])

    def finish(self) -> nn.Module | ExportedProgram:
        """Return the object that the user gets, with its report."""
        captured, decisions, editor = self.captured, self.decisions, self.edited[0].editor if self.edited else None
        if self.structure == "module" or editor is None:
            links = [link for edited in self.edited for link in edited.links] if self.guards else []
            replaced = with_checks(captured.model, self.replaced, links)
            return into_modules(captured, decisions, replaced, self._expected(), closes=bool(links))
        if captured.program is not None:
            return into_program(captured, self.edits, decisions)
        return into_graph_module(captured, editor, decisions, self.replaced, inplace=self.inplace)

    def _expected(self) -> dict[str, Any]:
        """Return the arguments that a model of the user's class has to be called with, since its graph was."""
        root = self.captured.root
        return {**_asked(root.module), **root.specialised} if root is not None and self.replaced else {}


def _asked(module: nn.Module) -> dict[str, Any]:
    """Return the required arguments whose type the forward asks for: the trace passed tensors there."""
    forward = type(module).forward
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind in positional]
    return {name: Tensor for name in required if asks_what_it_gets(forward, [name])}


def apply_rules(captured: Capture, options: Options, frozen_modules: Mapping[nn.Module, Refusal]) -> Attempt:
    """Run the rules over all captured graphs.

    Args:
        captured: the graphs, which are changed.
        options: what the user asked for.
        frozen_modules: modules that must stay as they are, and why.

    Raises:
        FuseError: if a graph is asked for, and the model cannot be traced as a whole.
    """
    structure = _structure(captured, options)
    editors = [(part, _editor(captured, part, options, frozen_modules, structure)) for part in captured.parts]
    written = [(part, editor) for part, editor in editors if editor.graph.keeps_code]
    into_classes = _into_classes(captured, written, options) if written else []
    graphs = [
        Edited(p, e, run(e, options.rules, _untraced(captured, p, e))) for p, e in editors if not e.graph.keeps_code
    ]
    attempt = Attempt(captured, structure, [*graphs, *into_classes], options.inplace, options.guards)
    return attempt.without([edited for edited in into_classes if edited.unwritten])


def _into_classes(captured: Capture, edits: list[tuple[Part, Editor]], options: Options) -> list[Edited]:
    """Run the rules over the graphs that are written back into the user's classes."""
    calls, methods = Calls(edits), OtherMethods(captured.paths)
    rules = [rule for rule in options.rules if rule is not drop_noops]
    found: list[Edited] = []
    for part, editor in edits:
        asked = (part, editor, rules, calls, methods, captured.paths)
        vetoes = RecordedVetoes(*asked, names=captured.by_name or captured.names) if part.recorded else Vetoes(*asked)
        of_code = _untraced(captured, part, editor)
        of_code += [] if part.recorded else [functools.partial(_require_unsized, captured, part, editor)]
        decisions, links = run(editor, rules, [*of_code, vetoes]), dict[Link, None]()
        if isinstance(vetoes, RecordedVetoes):
            links, nodes = vetoes.links()
            decisions = [replace(d, recorded=True) if not nodes.isdisjoint(d.nodes) else d for d in decisions]
            decisions = [d for n, d in enumerate(decisions) if d not in decisions[:n]]  # every call says the same
        found.append(Edited(part, editor, _assumed(part, decisions), links=links))
        calls.finished.add(editor)
    return [_written(edited, calls) for edited in found]


def _untraced(captured: Capture, part: Part, editor: Editor) -> list[Callable[[Plan], None]]:
    """Return a veto: it refuses a plan if untraced code may use one of its modules by itself."""
    if part.recorded or not captured.opaque:
        return []
    return [lambda plan: captured.names.require(changed_modules(part, editor, plan))]


def _require_unsized(captured: Capture, part: Part, editor: Editor, plan: Plan) -> None:
    """Refuse to merge a layer of which code that goes on running may read the sizes."""
    if isinstance(plan, Merge):
        for module in changed_modules(part, editor, plan) & captured.sized:
            raise Refusal(Reason.OWN_FORWARD, value=captured.paths[module] or type(module).__name__)


def _written(edited: Edited, calls: Calls) -> Edited:
    """Return the same with what takes the place of modules; without its edits where one would need several."""
    replaced = calls.replaced(edited.part, edited.editor)
    return edited.undone() if replaced is None else replace(edited, replaced=replaced)


def _structure(captured: Capture, options: Options) -> Structure:
    """Return the kind of object that will come back."""
    model = captured.model
    structure = options.structure or ("graph" if captured.whole and not is_hooked(model) else "module")
    # The class of a GraphModule is GraphModule, so both structures are the same.
    structure = "graph" if isinstance(model, fx.GraphModule) or captured.program is not None else structure
    if structure == "graph" and captured.root is None:
        raise FuseError(
            f"{type(model).__name__} cannot be traced as a whole ({captured.opaque[model]}), so structure='graph' "
            "is not possible; nothing was changed. Leave structure out, or pass structure='module'."
        )
    return structure


def _assumed(part: Part, decisions: list[Decision]) -> list[Decision]:
    """Return decisions that say that their graph rests on an assumption, if it does."""
    if not part.assumed:
        return decisions
    rests = f"{part.assumed}; example_inputs that reach it prove it"
    told = [rests if not d.detail else f"{d.detail}; {rests}" for d in decisions]
    return [replace(d, assumed=True, detail=t) if d.folded else d for d, t in zip(decisions, told, strict=True)]


def _editor(
    captured: Capture,
    part: Part,
    options: Options,
    frozen_modules: Mapping[nn.Module, Refusal],
    structure: Structure,
) -> Editor:
    graph = Graph(
        part.graph_module,
        part.path,
        root=part.module,
        frozen={**captured.frozen, **frozen_modules},
        holders=part.shared if structure == "graph" else captured.holders,
        allow_copies=options.allow_copies,
        guards=options.guards,
        allow_growth=options.allow_growth,
        keeps_code=structure == "module" or bool(part.path),
    )
    return Editor(graph)
