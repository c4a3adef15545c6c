"""Captured graphs against the modules they were captured from, on example inputs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.graph.ranks import EXAMPLE_SHAPE
from fxfuse.modules.comparison import agree
from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.example_inputs import Inputs, recorded, untouched
from fxfuse.modules.handed_on import unboxed
from fxfuse.modules.lookup import shallow_copy
from fxfuse.report.errors import out_of_memory

if TYPE_CHECKING:
    from fxfuse.capture.captured import Capture, Part


def prove(captured: Capture, inputs: Inputs) -> tuple[list[nn.Module], list[nn.Module]]:
    """Run every captured graph against its module, and record the shape of every value.

    Returns:
        The modules of which the graph gave what the module gives, and those of which it gave something else; a module
        that the inputs do not reach is in neither.
    """
    modules = [part.module for part in captured.parts if part.path]
    calls = recorded(captured.model, modules, inputs) if modules else {}
    calls[captured.model] = [inputs]
    right: list[nn.Module] = []
    wrong: list[nn.Module] = []
    for part in captured.parts:
        if part.module in calls:
            (right if _holds(part, calls[part.module], captured.model) else wrong).append(part.module)
    return right, wrong


def _holds(part: Part, calls: list[Inputs], model: nn.Module) -> bool:
    for call in calls:
        with untouched(model):
            expected = unboxed(call.call(_without_hooks(part.module)))
        try:
            with untouched(model):
                given = unboxed(_Recorder(part.graph_module.compiled()).run_on(call))
        except Exception as error:
            if out_of_memory(error):
                raise
            return False  # a graph that raises where the module does not is wrong
        if not agree(expected, given):
            return False
    return True


def _without_hooks(module: nn.Module) -> nn.Module:
    """Return the module as its graph sees it: hooks run around the graph as well."""
    bare = shallow_copy(module)
    if computes_weights(module):
        return bare
    bare.__dict__.update({n: type(v)() for n, v in module.__dict__.items() if n.endswith("_hooks")})
    return bare


class _Recorder(fx.Interpreter):
    """Runs a graph and notes the shapes."""

    def run_on(self, call: Inputs) -> Any:
        """Run the graph with the arguments of a call."""
        # The generated forward has the parameters of the module's, so it knows how to bind the arguments.
        call = call.copied()
        bound = inspect.signature(type(self.module).forward).bind(self.module, *call.args, **call.kwargs)
        bound.apply_defaults()
        self._passed = bound.arguments
        with torch.no_grad():
            return self.run()

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG002 - torch's signature
        """Return an argument by its name; torch would make a list of ``*args``, and of ``**kwargs`` too."""
        return self._passed[target.lstrip("*")]

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if isinstance(unboxed(result), Tensor):
            n.meta[EXAMPLE_SHAPE] = torch.Size(result.shape)
        return result
