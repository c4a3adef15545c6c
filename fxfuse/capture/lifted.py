"""Graphs whose parameters are inputs: read as if they held them, and given back as they were."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from torch import Tensor, fx, nn

from fxfuse.graph.lazy_graph_module import hold
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Mapping


def copied(graph: fx.Graph, attributes: Mapping[str, str] | None = None, *, keep: bool = False) -> fx.Graph:
    """Return a copy of a graph in which some placeholders are attributes of the module.

    Args:
        graph: the graph.
        attributes: names of placeholders -> where the module holds what is passed for them.
        keep: whether the placeholders stay, unused.
    """
    result, values = fx.Graph(tracer_cls=graph._tracer_cls), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        path = (attributes or {}).get(node.name) if node.op == "placeholder" else None
        if path is None or keep:
            values[node] = result.node_copy(node, values.__getitem__)
            values[node].name = node.name  # torch.export allows names that other graphs avoid, as "input"
        if path is not None:
            values[node] = result.create_node("get_attr", path, (), {}, None if keep else node.name)
            values[node].meta = dict(node.meta)
    for node in reversed(result.nodes):
        # Norms give tuples of which most items are never used.
        if node.op == "call_function" and node.target is operator.getitem and not node.users:
            result.erase_node(node)
    result.set_codegen(graph._codegen)
    return result


def holder_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return empty modules that hold tensors at dotted paths, parameters as parameters."""
    root = nn.Module()
    for path, tensor in tensors.items():
        *containers, name = path.split(".")
        holder = root
        for container in containers:
            holder = holder._modules.setdefault(container, nn.Module())  # type: ignore[assignment] # never None here
        hold(holder, name, tensor)
    return root


def release(graph_module: fx.GraphModule, placeholders: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Read what is still the caller's from the placeholders again; what was folded stays an attribute.

    Args:
        graph_module: a graph made by ``copied(..., keep=True)``.
        placeholders: paths of attributes -> names of placeholders.
        tensors: paths of attributes -> what the caller passes there.
    """
    inputs = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
    for node in list(graph_module.graph.nodes):
        path = str(node.target)
        if node.op == "get_attr" and path in placeholders and fetch(graph_module, path) is tensors[path]:
            node.replace_all_uses_with(inputs[placeholders[path]])
            graph_module.graph.erase_node(node)
