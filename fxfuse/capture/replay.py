"""A traced forward that runs in place of the Python code, and adds its nodes to a recording."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fxfuse.graph.nodes import PART, RETURNED
from fxfuse.modules.guards import require_value
from fxfuse.modules.handed_on import unboxed
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from torch import nn

    from fxfuse.capture.recorder import Recorder
    from fxfuse.graph.lazy_graph_module import Draft


class Watch(Protocol):
    """What a replay needs of the recording that it is added to."""

    recorder: Recorder
    paths: dict[nn.Module, str]
    layers: set[nn.Module]
    called: set[nn.Module]
    wrong: set[nn.Module]

    def inside(self, module: nn.Module) -> AbstractContextManager[None]:
        """Note that a module is under way."""

    def paused(self, *, off: bool = False) -> AbstractContextManager[None]:
        """Record nothing, or again everything."""


class Call(NamedTuple):
    """One call of a traced forward.

    Attributes:
        path: the path of the module.
        number: which call it is.
        single: whether one tensor alone is passed.
    """

    path: str
    number: int
    single: bool


class _Result(NamedTuple):
    """What a node of the trace gave, and what stands for it in the recording; None for what has to be looked up."""

    value: Any
    lifted: Any


class Replay:
    """One run of a trace.

    Args:
        recording: what it is added to.
        module: the module that was traced.
        draft: its trace.
        bound: its arguments by name.
    """

    def __init__(self, recording: Watch, module: nn.Module, draft: Draft, bound: Mapping[str, Any]) -> None:
        """Prepare a run."""
        self.recording = recording
        self.recorder = recording.recorder
        self.module = module
        self.draft = draft
        self.bound = bound
        passed = pytree.tree_leaves(unboxed(list(bound.values())[1:]))
        single = sum(isinstance(leaf, Tensor) for leaf in passed) == 1
        self.call = Call(recording.paths[module], self.recorder.new_number(), single)
        self.results: dict[fx.Node, _Result] = {}
        self.last: dict[fx.Node, list[fx.Node]] = {}
        for node in draft.graph.nodes:
            self.last.setdefault(max(node.users, default=node), []).append(node)

    def __call__(self) -> Any:
        """Run it, and return what the module gives."""
        with self.recording.inside(self.module), self.recording.paused():
            try:
                for node in self.draft.graph.nodes:
                    self.results[node] = self._run(node)
                    # Who holds a value after the run tells what leaves a model.
                    for read in self.last.get(node, ()) if node.op != "output" else ():
                        del self.results[read]
                value = self.results.pop(node).value
            except Exception:
                self.recording.wrong.add(self.module)
                raise
            finally:
                self.results.clear()
            if isinstance(unboxed(value), Tensor):
                self.recorder.node(unboxed(value)).meta[RETURNED] = self.call
            return value

    def _run(self, node: fx.Node) -> _Result:
        if node.op == "placeholder":
            return _Result(self.bound[str(node.target).lstrip("*")], None)
        if node.op == "get_attr":
            return self._read(node)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.results[n].value)
        if node.op == "output" or node.target is require_value:
            return _Result(args[0], None)
        if node.op == "call_module":
            return self._call_module(node, args, kwargs)
        lifted = self._lifted(node)
        called: Any = node.target
        if node.op == "call_method":
            called, args = getattr(args[0], called), args[1:]
        value = called(*args, **kwargs)
        return self._added(node, node.target, lifted, value)

    def _lifted(self, node: fx.Node) -> tuple[Any, Any]:
        """Return the arguments of a node as nodes of the recording."""

        def lift(read: fx.Node) -> Any:
            result = self.results[read]
            return self.recorder.lift(result.value) if result.lifted is None else result.lifted

        lifted: tuple[Any, Any] = fx.node.map_arg((node.args, node.kwargs), lift)
        return lifted

    def _added(self, node: fx.Node, target: Any, lifted: tuple[Any, Any], value: Any) -> _Result:
        """Add a node that does the same, unless it handles no tensors."""
        read: list[fx.Node] = []
        fx.node.map_arg(lifted, read.append)
        opens = target in (operator.getitem, getattr) and not isinstance(lifted[0][0], fx.Node)
        if opens or (not read and not isinstance(value, Tensor)):
            return _Result(value, None)  # the recorder knows the tensors in it
        added = self.recorder.add(node.op, target, lifted, self._stack(node))
        added.meta.update({key: item for key, item in node.meta.items() if key != "nn_module_stack"})
        added.meta[PART] = self.call
        if isinstance(value, Tensor):
            self.recorder.note(value, added)
        return _Result(value, added)

    def _read(self, node: fx.Node) -> _Result:
        target = str(node.target)
        value = fetch(self.draft, target)
        if not isinstance(value, Tensor):
            return _Result(value, None)
        name = self.recorder.held_as(value)
        if name is None and self.recorder.is_known(value):
            return _Result(value, None)
        read = self.recorder.literal(target, value) if name is None else self.recorder.read(name)
        read.meta.update({"nn_module_stack": self._stack(node), PART: self.call})
        return _Result(value, read)

    def _call_module(self, node: fx.Node, args: Any, kwargs: Any) -> _Result:
        module = self.draft.get_submodule(str(node.target))
        if module not in self.recording.layers:
            with self.recording.paused(off=True):
                return _Result(module(*args, **kwargs), None)  # it is watched, and adds nodes of its own
        self.recording.called.add(module)
        lifted = self._lifted(node)
        return self._added(node, self.recording.paths[module], lifted, module(*args, **kwargs))

    def _stack(self, node: fx.Node) -> OrderedDict[str, Any]:
        """Return the modules under way at a node, by their paths in the model."""
        stack = self.recorder.stack_here()
        for key, (path, cls) in (node.meta.get("nn_module_stack") or {}).items():
            inner = fetch(self.module, path) if path else self.module
            stack[f"{self.call.number}.{key}"] = self.recording.paths[inner], cls
        return stack
