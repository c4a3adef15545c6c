"""Captured graphs against the modules they were captured from, on example inputs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.examples import Inputs, agree, recorded, untouched
from fxfuse.shapes import EXAMPLE_SHAPE

if TYPE_CHECKING:
    from fxfuse.capture import Capture, Part


def wrong_parts(captured: Capture, inputs: Inputs) -> list[nn.Module]:
    """Run every captured graph against its module, and record the shape of every value.

    Returns:
        The modules of which the graph gave something else than the module.
    """
    modules = [part.module for part in captured.parts if part.path]
    calls = recorded(captured.model, modules, inputs) if modules else {}
    calls[captured.model] = [inputs]
    return [part.module for part in captured.parts if not _holds(part, calls.get(part.module, []), captured.model)]


def _holds(part: Part, calls: list[Inputs], model: nn.Module) -> bool:
    for call in calls:
        with untouched(model):
            expected = call.call(_without_hooks(part.module))
        try:
            with untouched(model):
                given = _Recorder(part.graph_module).run_on(call)
        except Exception:  # noqa: BLE001 - a graph that raises where the module does not is wrong
            return False
        if not agree(expected, given):
            return False
    return True


def _without_hooks(module: nn.Module) -> nn.Module:
    """Return the module as its graph sees it: hooks run around the graph as well."""
    bare = module.__new__(type(module))
    bare.__dict__ = {n: type(v)() if n.endswith("_hooks") else v for n, v in module.__dict__.items()}
    return bare


class _Recorder(fx.Interpreter):
    """Runs a graph and notes the shapes."""

    def run_on(self, call: Inputs) -> Any:
        """Run the graph with the arguments of a call."""
        # The generated forward has the parameters of the module's, so it knows how to bind the arguments.
        call = call.copied()
        bound = inspect.signature(type(self.module).forward).bind(self.module, *call.args, **call.kwargs)
        bound.apply_defaults()
        values: list[Any] = []
        for node in self.module.graph.nodes:  # type: ignore[union-attr] # a GraphModule has a graph
            if node.op == "placeholder":
                value = bound.arguments[node.target.lstrip("*")]
                several = node.target.startswith("*") and not node.target.startswith("**")
                values += list(value) if several else [value]
        with torch.no_grad():
            return self.run(*values)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta[EXAMPLE_SHAPE] = torch.Size(result.shape)
        return result
