"""One run of the rules over everything that was captured of a model."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import fx

from fxfuse.capture.names import reads_layers
from fxfuse.edit.editor import Editor
from fxfuse.graph.graph import Graph
from fxfuse.modules.lookup import is_hooked
from fxfuse.pipeline.engine import run
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.write_back.into_classes import replacements
from fxfuse.write_back.other_methods import OtherMethods, read_elsewhere
from fxfuse.write_back.replacements import Replacements, modules_of
from fxfuse.write_back.result import into_graph_module, into_modules, into_program, left_over

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn
    from torch.export import ExportedProgram

    from fxfuse.capture.capture import Capture, Part
    from fxfuse.capture.names import Names
    from fxfuse.graph.plan import Plan
    from fxfuse.pipeline.options import Options, Structure
    from fxfuse.report.report import Decision


@dataclass(frozen=True, eq=False)
class Attempt:
    """The edits of all parts, and what they mean for the modules of the model.

    Attributes:
        captured: what they were made on.
        structure: the kind of object that will come back.
        edits: each part with its editor.
        decisions: what the rules decided.
        replaced: the modules that change, where the Python classes are kept.
        kept: modules that had to stay as they are, and why.
        inplace: whether the result will take the place of the argument.
    """

    captured: Capture
    structure: Structure
    edits: list[tuple[Part, Editor]]
    decisions: list[Decision]
    replaced: Replacements
    kept: Mapping[nn.Module, Refusal]
    inplace: bool = False

    @property
    def conflicts(self) -> dict[nn.Module, Refusal]:
        """Modules for which the edits cannot be written back, and why."""
        paths = self.captured.paths
        unwritable = {m: Refusal(Reason.OWN_FORWARD, value=paths[m]) for m in self.replaced.conflicts}
        read = read_elsewhere(self.replaced.modules, paths)
        return {**read, **unwritable}

    @property
    def by_module(self) -> list[tuple[Part, Editor]]:
        """The edits that are written back into the user's classes."""
        return [(part, editor) for part, editor in self.edits if self.structure == "module" or part.path]

    @staticmethod
    def of(captured: Capture, options: Options, kept: Mapping[nn.Module, Refusal]) -> Attempt:
        """Run the rules.

        Args:
            captured: the graphs, which are changed.
            options: what the user asked for.
            kept: modules that must stay as they are, and why.

        Raises:
            FuseError: if a graph is asked for, and the model cannot be traced as a whole.
        """
        model = captured.model
        structure = options.structure or ("graph" if captured.whole and not is_hooked(model) else "module")
        # The class of a GraphModule is GraphModule, so both structures are the same.
        structure = "graph" if isinstance(model, fx.GraphModule) or captured.program is not None else structure
        if structure == "graph" and captured.root is None:
            raise FuseError(
                f"{type(model).__name__} cannot be traced as a whole ({captured.opaque[model]}), so structure='graph' "
                "is not possible; nothing was changed. Leave structure out, or pass structure='module'."
            )
        edits: list[tuple[Part, Editor]] = []
        decisions: list[Decision] = []
        others = OtherMethods(captured.paths)
        layers_are_read = functools.cache(functools.partial(reads_layers, model))  # the same for all parts
        for part in captured.parts:
            as_graph = structure == "graph" and not part.path
            rules = [rule for rule in options.rules if as_graph or rule is not drop_noops]
            holders = {} if structure == "graph" else captured.holders
            editor = Editor(
                _graph(captured, part, options, kept, holders, layers_are_read=None if as_graph else layers_are_read)
            )
            found = run(editor, rules, [_Untraced(captured.names, None if as_graph else others, part, editor).refusal])
            if part.assumed:
                found = [replace(d, assumed=True, detail=d.detail or part.assumed) if d.folded else d for d in found]
            decisions += found
            edits.append((part, editor))
        attempt = Attempt(captured, structure, edits, decisions, Replacements(), kept, options.inplace)
        return replace(attempt, replaced=replacements(attempt.by_module))

    def finish(self, expected: Mapping[str, Any] | None = None) -> nn.Module | ExportedProgram:
        """Return the object that the user gets, with its report.

        Args:
            expected: arguments that a model of the user's class must be called with.
        """
        decisions = [*self.decisions, *left_over(self.captured, self.decisions)]
        order = {path: position for position, path in enumerate(self.captured.paths.values())}
        decisions.sort(key=lambda decision: order.get(decision.path, len(order)))
        if self.captured.program is not None:
            return into_program(self.captured, self.edits[0][1], decisions)
        if self.structure == "graph":
            editor = self.edits[0][1]
            return into_graph_module(self.captured, editor, decisions, self.replaced, inplace=self.inplace)
        return into_modules(self.captured, decisions, self.replaced, expected or {})


class _Untraced(NamedTuple):
    """Says before an edit whether code that is not traced forbids it."""

    names: Names
    others: OtherMethods | None
    part: Part
    editor: Editor

    def refusal(self, plan: Plan) -> Refusal | None:
        """Return why a plan must not be carried out, None if it may."""
        modules = modules_of(plan, self.part, self.editor)
        refusal = self.names.refusal(modules)
        if refusal is None and self.others is not None:
            refusal = self.others.refusal(modules, onwards=plan.onwards)
        return refusal


def _graph(
    captured: Capture,
    part: Part,
    options: Options,
    kept: Mapping[nn.Module, Refusal],
    holders: Mapping[int, list[str]],
    *,
    layers_are_read: Callable[[], bool] | None,
) -> Graph:
    return Graph(
        part.graph_module,
        part.path,
        root=part.module,
        kept={**captured.kept, **kept},
        holders=holders,
        allow_copies=options.allow_copies,
        guards=options.guards,
        allow_growth=options.allow_growth,
        layers_are_read=layers_are_read,
    )
