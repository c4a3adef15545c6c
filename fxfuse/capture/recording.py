"""One run of a model on example inputs, written down as a graph.

What can be traced is traced, also inside of what cannot: its nodes are those of the trace, and hold for every input.
A layer is one node wherever it is called.  Everything else is ATen calls, which say what uses which value, and no more.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import traceback
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse.capture.forward_arguments import ANY_VALUE, require_any_call
from fxfuse.capture.recorder import Recorder
from fxfuse.capture.replay import Replay
from fxfuse.capture.tracer import Tracer
from fxfuse.graph.lazy_graph_module import Draft
from fxfuse.graph.registry import operator_of
from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.example_inputs import Inputs, untouched
from fxfuse.modules.handed_on import unboxed
from fxfuse.modules.lookup import is_layer_of_torch, paths_below, shallow_copy
from fxfuse.report.errors import out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_under_way = threading.local()


class Recording:
    """A recorder with the modules that it watches.

    Attributes:
        model: the model.
        paths: the path of each module.
        layers: those that are one operation.
        traced: modules of which a trace took the place of the forward.
        called: all modules that were called.
        wrong: modules of which the trace could not be run.
    """

    def __init__(self, model: nn.Module, untraced: Collection[nn.Module]) -> None:
        """Watch ``model``; the forwards of ``untraced`` run as they are."""
        self.model = model
        self.recorder = Recorder(model)
        self.paths = paths_below(model)
        # Asked before they are watched: a forward that was replaced is no layer's.
        self.layers = {m for m in self.paths if operator_of(m) is not None or is_layer_of_torch(m)}
        self.traced: set[nn.Module] = set()
        self.called: set[nn.Module] = set()
        self.wrong: set[nn.Module] = set()
        self.opaque: set[nn.Module] = set(untraced)
        self._traces: dict[nn.Module, Draft] = {}
        self._before: dict[nn.Module, Any] = {}
        self._hooks: dict[nn.Module, Any] = {}  # those that compute weights, and run with the forward

    def run(self, inputs: Inputs) -> Any:
        """Run the model, which is afterwards as it was, and return what it gives."""
        with untouched(self.model), self._watching(), eager():
            copied = inputs.copied()
            with torch.no_grad(), self.recorder:
                return self.model(*copied.args, **copied.kwargs)

    def graph_module(self) -> Draft:
        """Return what was recorded; whatever the caller still holds of the run leaves the graph."""
        holder = shallow_copy(self.model)
        graph = self.recorder.finish(holder)
        return Draft(holder, graph, type(self.model).__name__)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Put a function around the forward of every module, for this thread alone."""
        modules = [module for module in self.paths if not isinstance(module, torch.jit.ScriptModule)]
        self._before = {module: module.__dict__.get("forward") for module in modules}
        outer, _under_way.recording = getattr(_under_way, "recording", None), self
        try:
            self._watch(modules)
            yield
        finally:
            self._unwatch(modules)
            _under_way.recording = outer

    def _watch(self, modules: Collection[nn.Module]) -> None:
        for module in modules:
            forward = module.forward
            if computes_weights(module):
                forward = self._with_weights(module, forward)
                self._hooks[module], module._forward_pre_hooks = module._forward_pre_hooks, OrderedDict()
            module.__dict__["forward"] = self._around(module, forward)

    def _unwatch(self, modules: Collection[nn.Module]) -> None:
        for module in modules:
            before = self._before[module]
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before
            if module in self._hooks:
                module._forward_pre_hooks = self._hooks.pop(module)

    def _with_weights(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Let hooks that compute weights run as a part of the forward: else others seem to read the parameters."""
        hooks = list(module._forward_pre_hooks.values())

        def computed(*args: Any, **kwargs: Any) -> Any:
            with self.paused():
                for hook in hooks:
                    hook(module, args)
            return forward(*args, **kwargs)

        return computed

    def _around(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if getattr(_under_way, "recording", None) is not self or self.recorder.paused:
                return forward(*args, **kwargs)
            return self._call(module, forward, args, kwargs)

        return watched

    def _call(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a module, and note what it does in the way that says most."""
        self.called.add(module)
        if self._before[module] is None and module in self.layers:
            return self._call_layer(module, forward, args, kwargs)
        found = self._trace(module, args, kwargs)
        if found is not None:
            self.traced.add(module)
            return found()
        with self.inside(module):
            return forward(*args, **kwargs)

    def _call_layer(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        recorder = self.recorder
        lifted = recorder.lift((args, kwargs))
        with self.paused():
            out = forward(*args, **kwargs)
        path = self.paths[module]
        stack = recorder.stack_here()
        stack[f"call {recorder.new_number()}"] = path, type(module)
        recorder.note(out, recorder.add("call_module", path, lifted, stack))
        return out

    @contextlib.contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Note that a module is under way, of which the calls are recorded one by one."""
        recorder = self.recorder
        depth, paused = len(recorder.stack), recorder.paused
        recorder.stack.append((self.paths[module], type(module), recorder.new_number()))
        recorder.paused = False
        try:
            yield
        finally:
            del recorder.stack[depth:]
            recorder.paused = paused

    @contextlib.contextmanager
    def paused(self, *, off: bool = False) -> Iterator[None]:
        """Record nothing, or again everything."""
        paused, self.recorder.paused = self.recorder.paused, not off
        try:
            yield
        finally:
            self.recorder.paused = paused

    # -- modules that can be traced

    def _trace(self, module: nn.Module, args: Any, kwargs: Any) -> Replay | None:
        """Return a run of the trace of a module with these arguments, None where there is none that holds for them."""
        if module in self.opaque:
            return None
        try:
            bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        except (TypeError, ValueError):
            return None
        # A trace may keep what it is given, and what is kept after a run seems to leave the model.
        passed = pytree.tree_map_only(Tensor, lambda _: ANY_VALUE, unboxed(dict(list(bound.arguments.items())[1:])))
        if module not in self._traces:
            try:
                self._traces[module] = self._traced(module, passed)
            except Exception as error:
                if out_of_memory(error):
                    raise
                self.opaque.add(module)  # a forward can raise anything when it is traced
                _forget(error)
                return None
        bound.apply_defaults()
        return Replay(self, module, self._traces[module], bound.arguments)

    def _traced(self, module: nn.Module, passed: dict[str, Any]) -> Draft:
        """Trace a module as it was before anybody watched it.

        Raises:
            Untraceable: if the trace does not hold for every call that untraced code may make.
        """
        below = [inner for inner in paths_below(module) if inner in self._before]
        self._unwatch(below)
        tracer = Tracer(passed, self.opaque & set(below))
        try:
            with self.paused():
                draft = tracer.capture(module)
        finally:
            tracer.failure = None
            self._watch(below)
        require_any_call(type(module).forward, tracer.specialised)
        return draft


def _forget(error: BaseException | None) -> None:
    """Let go of the frames of an error, which hold one another: what they hold would seem to leave the model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Run what is compiled as it was written; where the compiler was never imported, nothing is compiled."""
    compiles = "torch._dynamo" in sys.modules
    with torch.compiler.set_stance("force_eager") if compiles else contextlib.nullcontext():
        yield
