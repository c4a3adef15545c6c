"""A model as graphs: one if it can be traced as a whole, else one for each part that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxfuse.capture.captured import Capture, Part
from fxfuse.capture.forward_arguments import require_any_call, takes_required_only
from fxfuse.capture.hooks import changed_by_hooks, has_keeping_hooks, kept_by_hooks
from fxfuse.capture.lifted import inputs_as_attributes
from fxfuse.capture.names import Names
from fxfuse.capture.tracer import Tracer
from fxfuse.graph.lazy_graph_module import Draft, hold, module_calls
from fxfuse.graph.nodes import LEFT_WHOLE
from fxfuse.graph.registry import operator_of
from fxfuse.modules.lookup import is_hooked, is_layer_of_torch, shallow_copy
from fxfuse.report.errors import sentence

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, fx

    from fxfuse.capture.hooks import Hooks


ASSUMED = "untraced code calls it as a whole, by the names that it mentions"
_GIVEN = "a graph calls it in other ways"


def capture_graph(
    graph_module: fx.GraphModule, constants: Mapping[str, Tensor] | None = None, hooks: Hooks = "keep"
) -> Capture:
    """Take a graph that is there already; the pass works on a copy of it.

    Args:
        graph_module: the graph.
        constants: names of placeholders -> what is passed for them at every call.
        hooks: whether hooks keep what is inside of the modules that they are on.
    """
    holder, paths = shallow_copy(graph_module), dict[str, str]()
    for name, tensor in (constants or {}).items():
        path = paths[name] = f"{name}_constant" if hasattr(graph_module, name) else name
        hold(holder, path, tensor)
    graph = inputs_as_attributes(graph_module.graph, paths, keep=True)
    session = _Session(graph_module, hooks)
    session.take(Part(graph_module, "", Draft(holder, graph, type(graph_module).__name__)))
    captured = session.result
    captured.lifted = {paths[name]: tensor for name, tensor in (constants or {}).items()}
    captured.placeholders = {path: name for name, path in paths.items()}
    return captured


def capture(
    model: nn.Module,
    passed: Mapping[str, Any] | None = None,
    wrongly_traced: Collection[nn.Module] = (),
    hooks: Hooks = "keep",
) -> Capture:
    """Trace what can be traced of a model: the whole, or each module in what cannot be traced.

    Args:
        model: the model.
        passed: arguments that it is known to be called with.
        wrongly_traced: modules of which the graph was seen to give another result than the module.
        hooks: whether hooks keep what is inside of the modules that they are on.
    """
    session = _Session(model, hooks, passed, wrongly_traced)
    session.trace(model)
    session.drop_switched()
    return session.result


class _Session:
    """One pass over the model, which traces each module at most once by itself."""

    def __init__(
        self,
        model: nn.Module,
        hooks: Hooks,
        passed: Mapping[str, Any] | None = None,
        wrongly_traced: Collection[nn.Module] = (),
    ) -> None:
        self.passed = passed or {}
        self.result = Capture(model)
        self.paths = self.result.paths
        self.seen: set[nn.Module] = set()
        self.hooks_observe = hooks == "observe"
        self.wrongly_traced = {*wrongly_traced}
        if any(map(is_hooked, self.paths)):
            self.wrongly_traced |= changed_by_hooks(self.paths)
            if not self.hooks_observe:
                self.result.frozen.update(kept_by_hooks(self.paths))

    def take(self, part: Part) -> None:
        """Take a graph that is there, and trace the modules of the user's that it calls as a whole."""
        self.result.parts.append(part)
        self.seen.add(part.module)
        for module, calls in module_calls(part.graph_module).items():
            if operator_of(module) is None and not is_layer_of_torch(module):
                self._called(module, calls, _GIVEN)

    def trace(self, module: nn.Module, *, called_by_graph: bool = False) -> None:
        """Trace a module by itself, or else the modules in it."""
        root, known = module is self.result.model, module in self.seen or operator_of(module) is not None
        self.seen.add(module)
        if known or (not root and self._stays(module)):
            return
        tracer = Tracer(self.passed if root else {}, self.wrongly_traced)
        try:
            graph_module = tracer.capture(module)
            if not root and not called_by_graph:
                require_any_call(type(module).forward, tracer.specialised)
        except Exception as error:  # noqa: BLE001 - anything that a user's forward can raise
            self._leave(module, sentence(error))
            return
        assumed = "" if root or called_by_graph else ASSUMED
        how = (assumed, tracer.specialised, tracer.passed, self.wrongly_traced, tracer.by_keyword)
        self.result.parts.append(Part(module, self.paths[module], graph_module, *how))
        calls = module_calls(graph_module) if tracer.left_whole else {}
        for inner, reason in tracer.left_whole.items():
            for call in calls.get(inner, []):
                call.meta[LEFT_WHOLE] = reason.removeprefix("Untraceable: ")
            self._called(inner, calls.get(inner, []), reason)

    def _stays(self, module: nn.Module) -> bool:
        """Whether there is no use in tracing a module by itself."""
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            self._trace_all(module)
        elif has_keeping_hooks(module) and not self.hooks_observe:
            self.result.opaque[module] = "it has hooks"
        elif not any(inner._parameters or inner._buffers for inner in module.modules()):
            self.result.as_is[module] = "it holds nothing that could fold"
        else:
            return False
        return True

    def _called(self, module: nn.Module, calls: list[fx.Node], reason: str) -> None:
        """Look at a module that a graph calls as a whole."""
        if isinstance(module, torch.jit.ScriptModule):
            self.seen.add(module)
            self.result.as_is[module] = "it is TorchScript, into which nobody can look"
            return
        required = all(takes_required_only(module, len(call.args), call.kwargs) for call in calls)
        if has_keeping_hooks(module) and not self.hooks_observe:
            self.seen.add(module)
            self.result.as_is[module] = "it has hooks"
        elif required and (is_hooked(module) or reason == _GIVEN):
            self.trace(module, called_by_graph=True)
        elif module not in self.seen:
            self.seen.add(module)
            self._leave(module, reason)

    def _leave(self, module: nn.Module, reason: str) -> None:
        """Leave a module as it is, and trace those in it."""
        self.result.opaque[module] = reason
        self._trace_all(module)

    def _trace_all(self, module: nn.Module) -> None:
        for child in module.children():
            if not isinstance(child, torch.jit.ScriptModule):  # which nobody can look into
                self.trace(child)

    def drop_switched(self) -> None:
        """Leave the modules of which untraced code sets an attribute that their forward reads."""
        while self.result.opaque or self.result.as_is:
            names = Names(self.paths, {**self.result.as_is, **self.result.opaque})
            switched = names.switched(part.module for part in self.result.parts)
            if not switched:
                return
            self.result.parts = [part for part in self.result.parts if part.module not in switched]
            for module in switched:
                self._leave(module, "untraced code sets an attribute that it reads")
