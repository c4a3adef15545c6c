"""A model as graphs: one if it can be traced as a whole, else one for each part that can be."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fxfuse.capture.forward_arguments import has_own_call
from fxfuse.capture.lifted import copy_of, inputs_as_attributes
from fxfuse.capture.tracer import Tracer
from fxfuse.graph.lazy_graph_module import Draft, hold, module_calls
from fxfuse.graph.nodes import LEFT_WHOLE
from fxfuse.graph.registry import operator_of
from fxfuse.modules.lookup import is_hooked, is_layer_of_torch, paths_below, shallow_copy
from fxfuse.report.errors import sentence
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.source.hook_effects import HookEffects
from fxfuse.source.reach import reach, reaches_modules, takes_required_only

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from torch import Tensor, fx, nn
    from torch.export import ExportedProgram

    from fxfuse.source.reach import Reach


READ = "untraced code calls it, and was only read"


@dataclass(frozen=True, eq=False)
class Part:
    """A module of which the forward was captured.

    Attributes:
        module: the module.
        path: its path in the model, empty for the model itself.
        graph_module: its graph.
        assumed: why the graph holds only under an assumption, empty for a proof.
        specialised: arguments for which the graph holds at one value only.
        boundaries: modules inside that are single nodes, since untraced code calls them too.
        passed: arguments that it is known to be called with.
        distrusted: modules inside that were left whole, since their trace was seen to be wrong.
        recorded: it is a run on example inputs, and holds for that.
    """

    module: nn.Module
    path: str
    graph_module: Draft
    assumed: str = ""
    specialised: Mapping[str, Any] = field(default_factory=dict)
    boundaries: Collection[nn.Module] = ()
    passed: Mapping[str, Any] = field(default_factory=dict)
    distrusted: Collection[nn.Module] = ()
    recorded: bool = False


@dataclass
class Capture:
    """Everything that could be captured of a model.

    Attributes:
        parts: the captured graphs.
        opaque: modules of which the own forward was not captured, and why.
        read: what was read of these.
        kept: modules that must stay what they are, and why: untraced code looks into them.
        kept_by: the modules of which the untraced code is the reason.
        program: the exported program that was captured, if it was one.
        lifted: paths in the captured graph -> tensors that the caller of the graph passes at every call.
        placeholders: the same paths -> the placeholders for which they are passed.
    """

    model: nn.Module
    parts: list[Part] = field(default_factory=list)
    opaque: dict[nn.Module, str] = field(default_factory=dict)
    read: dict[nn.Module, Reach] = field(default_factory=dict)
    kept: dict[nn.Module, Refusal] = field(default_factory=dict)
    kept_by: dict[nn.Module, set[nn.Module]] = field(default_factory=dict)
    program: ExportedProgram | None = None
    lifted: Mapping[str, Tensor] = field(default_factory=dict)
    placeholders: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Part | None:
        """The part that is the whole model, with nodes for what was left whole in it."""
        return next((p for p in self.parts if p.module is self.model and p.module not in self.opaque), None)

    @functools.cached_property
    def paths(self) -> dict[nn.Module, str]:
        """The first path of every module."""
        return paths_below(self.model)

    @functools.cached_property
    def holders(self) -> dict[int, list[str]]:
        """The paths of the modules in which each parameter is registered, by its id."""
        result: dict[int, list[str]] = {}
        for module, path in self.paths.items():
            for parameter in module._parameters.values():
                if parameter is not None:
                    result.setdefault(id(parameter), []).append(path)
        return result

    def copied(self) -> Capture:
        """Return the same with graphs of its own, which can be changed."""
        return replace(self, parts=[replace(p, graph_module=copy_of(p.graph_module)) for p in self.parts])

    @property
    def whole(self) -> bool:
        """Whether one graph holds the whole model, but for modules with hooks."""
        return self.root is not None and not self.opaque


def capture_graph(graph_module: fx.GraphModule, constants: Mapping[str, Tensor] | None = None) -> Capture:
    """Take a graph that is there already; the pass works on a copy of it.

    Args:
        graph_module: the graph.
        constants: names of placeholders -> what is passed for them at every call.
    """
    holder, paths = shallow_copy(graph_module), dict[str, str]()
    for name, tensor in (constants or {}).items():
        path = paths[name] = f"{name}_constant" if hasattr(graph_module, name) else name
        hold(holder, path, tensor)
    graph = inputs_as_attributes(graph_module.graph, paths, keep=True)
    draft = Draft(holder, graph, type(graph_module).__name__)
    captured = _until_known(graph_module, lambda session: session.take(Part(graph_module, "", draft)))
    captured.lifted = {paths[name]: tensor for name, tensor in (constants or {}).items()}
    captured.placeholders = {path: name for name, path in paths.items()}
    return captured


def capture(
    model: nn.Module, passed: Mapping[str, Any] | None = None, distrusted: Collection[nn.Module] = ()
) -> Capture:
    """Trace what can be traced of a model.

    The source of what cannot be traced tells which modules it calls as a whole.

    Args:
        model: the model.
        passed: arguments that it is known to be called with.
        distrusted: modules of which the graph was seen to give another result than the module.
    """
    return _until_known(model, lambda session: session.trace(model), passed, distrusted)


def _until_known(
    model: nn.Module,
    start: Callable[[_Session], None],
    passed: Mapping[str, Any] | None = None,
    distrusted: Collection[nn.Module] = (),
) -> Capture:
    """Capture again until nothing new is found: what untraced code reaches may turn out after a part was traced."""
    boundaries: set[nn.Module] = set()
    while True:
        start(session := _Session(model, boundaries, passed or {}, distrusted))
        if session.reached <= boundaries:
            return session.result
        boundaries = boundaries | session.reached


class _Session:
    """One pass over the model, with the boundaries that are known."""

    def __init__(
        self,
        model: nn.Module,
        boundaries: set[nn.Module],
        passed: Mapping[str, Any],
        distrusted: Collection[nn.Module],
    ) -> None:
        self.passed = passed
        self.result = Capture(model)
        self.boundaries = boundaries
        self.reached: set[nn.Module] = set()
        self.paths = self.result.paths
        self.seen: set[nn.Module] = set()
        self.given: set[nn.Module] = set()  # called by a graph that was there
        hooks = HookEffects.of(self.paths)
        self.result.kept.update(hooks.kept())
        self.distrusted = {*distrusted, *hooks.untraceable()}

    def take(self, part: Part) -> None:
        """Take a graph that is there, and trace the modules of the user's that it calls as a whole."""
        self.result.parts.append(part)
        self.seen.add(part.module)
        for module, calls in module_calls(part.graph_module).items():
            if operator_of(module) is None and not is_layer_of_torch(module):
                self.given.add(module)
                self._left_whole(module, "a graph calls it in other ways", calls)

    def trace(self, module: nn.Module) -> None:
        """Trace a module that is called as a whole, or else what it calls."""
        if module in self.seen or operator_of(module) is not None:
            return
        self.seen.add(module)
        passed = self.passed if module is self.result.model else {}
        inside = paths_below(module).keys() - {module} if self.boundaries or self.distrusted else set()
        boundaries, distrusted = self.boundaries & inside, inside.intersection(self.distrusted)
        tracer = Tracer(boundaries, passed, {*distrusted, *({module} & set(self.distrusted))})
        try:
            graph_module = tracer.capture(module)
        except Exception as error:  # noqa: BLE001 - anything that a user's forward can raise
            self.descend(module, sentence(error))
            return
        assumed = "" if module is self.result.model or module in self.given else READ
        how = (tracer.specialised, boundaries, passed, distrusted)
        self.result.parts.append(Part(module, self.paths[module], graph_module, assumed, *how))
        calls = module_calls(graph_module) if tracer.left_whole else {}
        for inner, reason in tracer.left_whole.items():
            for call in calls.get(inner, []):
                call.meta[LEFT_WHOLE] = reason.removeprefix("Untraceable: ")
            self._left_whole(inner, reason, calls.get(inner, []))

    def _left_whole(self, module: nn.Module, reason: str, calls: list[fx.Node]) -> None:
        own_graph = is_hooked(module) or module in self.boundaries or module in self.given
        if own_graph and all(takes_required_only(module, len(c.args), c.kwargs, starred=False) for c in calls):
            self.trace(module)
        elif module not in self.seen:
            self.seen.add(module)
            self.descend(module, reason)

    def descend(self, module: nn.Module, reason: str, entries: Iterable[str] = ()) -> None:
        """Read how a module that cannot be traced reaches the modules below, and trace those."""
        self.result.opaque[module] = reason
        first = ("__call__", "forward") if has_own_call(module) else ("forward",)
        found = self.result.read[module] = reach(module, (*first, *entries))
        self._keep(found.kept, module)
        if found.unknown:
            self.result.opaque[module] = f"{reason}; {found.unknown}"
            self._keep(module.modules(), module)
            return
        self.reached |= set(found.called)
        # What untraced code calls by itself must go on giving what it gives.
        self._keep((child for child in found.called if operator_of(child) is not None), module)
        for child in {**found.called, **dict.fromkeys(found.entered)}:
            others = {name for name in found.entered.get(child, ()) if reaches_modules(child, name)}
            if found.called.get(child, True) and not others:
                self.trace(child)
            elif child not in self.seen and operator_of(child) is None:
                self.seen.add(child)
                self.descend(child, "untraced code calls it in other ways", others)

    def _keep(self, modules: Iterable[nn.Module], reader: nn.Module) -> None:
        users = self.paths[reader] or type(reader).__name__
        for module in modules:
            refusal = Refusal(Reason.REACHED_INTO, value=self.paths.get(module, "it"), users=users)
            self.result.kept.setdefault(module, refusal)
            self.result.kept_by.setdefault(module, set()).add(reader)
