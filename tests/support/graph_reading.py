"""What tests want to know of a graph, whatever its form."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx


def count_norms(graph_module: fx.GraphModule) -> int:
    """How many nodes of a graph normalise with statistics."""
    return sum(_is_norm(graph_module, node) for node in graph_module.graph.nodes)


def _is_norm(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return hasattr(graph_module.get_submodule(str(node.target)), "running_var")
    name = str(getattr(node.target, "__name__", node.target))
    return node.op == "call_function" and ("batch_norm" in name or "instance_norm" in name)


def live(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The nodes that the output is computed from: some forms drop the others before the pass sees them."""
    needed = {node for node in graph_module.graph.nodes if node.op == "output"}
    for node in reversed(graph_module.graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in graph_module.graph.nodes if node in needed]


def called(graph_module: fx.GraphModule) -> list[str]:
    """The names of what a graph calls, in order, but for items of tuples."""
    nodes = [n for n in graph_module.graph.nodes if n.op.startswith("call") and n.target is not operator.getitem]
    return [name_of(n) for n in nodes]


def name_of(node: fx.Node) -> str:
    """The name of what a node calls."""
    return str(getattr(node.target, "__name__", node.target))
