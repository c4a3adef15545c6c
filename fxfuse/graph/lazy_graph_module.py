"""The GraphModule that the pass works on: nothing of it is compiled until somebody runs it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn
from torch.fx.graph import PythonCode

from fxfuse.modules.lookup import attribute


class Draft(fx.GraphModule):
    """A graph with the modules and tensors of a root, as a GraphModule would hold them.

    To generate code for every state of a graph would take a third of the time of the whole pass.  Whoever runs a
    draft compiles it first: ``draft.compiled()``.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, class_name: str) -> None:
        """Take from ``root`` what the nodes of the graph refer to, under the same paths."""
        super().__init__(nn.Module(), fx.Graph(), class_name)
        self.training = root.training
        share(root, self, graph)
        self.graph = graph

    def recompile(self) -> PythonCode:
        """Put compiling off."""
        return PythonCode("", {}, None)

    def compiled(self) -> fx.GraphModule:
        """Generate the code of the graph as it is now, and return this module."""
        super().recompile()
        return self


def share(root: nn.Module, holder: nn.Module, graph: fx.Graph) -> None:
    """Put what the nodes of a graph refer to in ``root`` into ``holder``, under the same paths."""
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            share_path(root, holder, str(node.target))


def share_path(root: nn.Module, holder: nn.Module, target: str) -> None:
    """Put what ``root`` has at a dotted path into ``holder``, with empty modules on the way."""
    *containers, name = target.split(".")
    source: Any = root
    for container in containers:
        source = attribute(source, container)
        inner = holder._modules.get(container)
        if inner is source:
            return  # a module that is there as a whole
        if inner is None:
            inner = holder._modules[container] = nn.Module()
        holder = inner
    hold(holder, name, attribute(source, name))


def hold(holder: nn.Module, name: str, value: object) -> None:
    """Let a module have a child, a parameter, a buffer or an attribute, whichever the value is."""
    registries = ((nn.Module, holder._modules), (nn.Parameter, holder._parameters), (Tensor, holder._buffers))
    places: Any = next((place for kind, place in registries if isinstance(value, kind)), holder.__dict__)
    places[name] = value


def module_calls(draft: fx.GraphModule) -> dict[nn.Module, list[fx.Node]]:
    """Return the modules that a graph calls, each with its calls."""
    found: dict[nn.Module, list[fx.Node]] = {}
    for node in draft.graph.nodes:
        if node.op == "call_module":
            found.setdefault(draft.get_submodule(str(node.target)), []).append(node)
    return found
