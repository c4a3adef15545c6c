"""Graphs that the graph of an exported program calls: regions of autocast or gradient modes, branches, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator

from fxfuse.capture.captured import Part, Region
from fxfuse.capture.lifted import inputs_as_attributes
from fxfuse.graph.lazy_graph_module import Draft, share, share_path
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is called with graphs, and then with the operands of each of them: all of these one by one, or as one tuple.
_ONE_BY_ONE = frozenset(
    "wrap_with_autocast wrap_with_set_grad_enabled wrap_activation_checkpoint tag_activation_checkpoint".split()
)
_AS_TUPLE = frozenset(["cond"])


class GraphCall(NamedTuple):
    """A call of graphs.

    Attributes:
        node: the node.
        graphs: the nodes that read the graphs.
        operands: what each of the graphs is called with.
    """

    node: fx.Node
    graphs: list[fx.Node]
    operands: list[Any]

    def call_with(self, operands: list[Any]) -> None:
        """Let the node pass other operands."""
        first = self.node.args.index(self.graphs[-1]) + 1
        passed = [tuple(operands)] if isinstance(self.node.args[first], (tuple, list)) else operands
        self.node.args = (*self.node.args[:first], *passed)


def graph_calls(graph_module: fx.GraphModule) -> Iterator[GraphCall]:
    """Yield the calls of graphs of which it is known what the operands are."""
    for node in graph_module.graph.nodes:
        if not isinstance(node.target, HigherOrderOperator) or node.kwargs:
            continue
        graphs = [arg for arg in node.args if isinstance(arg, fx.Node) and _reads_graph(graph_module, arg)]
        behind = list(node.args[node.args.index(graphs[-1]) + 1 :]) if graphs else []
        if graphs and node.target.name() in _ONE_BY_ONE:
            yield GraphCall(node, graphs, behind)
        elif len(behind) == 1 and node.target.name() in _AS_TUPLE:
            yield GraphCall(node, graphs, list(behind[0]))


def _reads_graph(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "get_attr" and isinstance(fetch(graph_module, str(node.target)), fx.GraphModule)


def regions_in(number: int, part: Part) -> Iterator[Part]:
    """Yield the graphs that the graph of a part calls, as parts; the constants among their operands are attributes.

    Args:
        number: the position of the part among all.
        part: the part.
    """
    draft = part.graph_module
    for call in graph_calls(draft):
        graphs = [fetch(draft, str(node.target)) for node in call.graphs]
        inputs = [graph.graph.find_nodes(op="placeholder") for graph in graphs]
        constants = {place: node for place, node in enumerate(call.operands) if _reads_tensor(draft, node)}
        paths = {str(node.target) for node in constants.values()}
        own = {str(node.target) for graph in graphs for node in graph.graph.find_nodes(op="get_attr")}
        once = all(len(node.users) == 1 for node in call.graphs)
        if not once or own & paths or any(len(found) != len(call.operands) for found in inputs):
            continue
        for position, (graph, placeholders) in enumerate(zip(graphs, inputs, strict=True)):
            names = {placeholders[place].name: str(node.target) for place, node in constants.items()}
            root = nn.Module()
            share(graph, root, graph.graph)
            copied = inputs_as_attributes(graph.graph, names)
            for path in names.values():
                share_path(draft, root, path)
            beside = [others for others in inputs if others is not placeholders]
            shared = dict(part.shared)
            for place, node in constants.items():
                if len(node.users) > 1 or any(others[place].users for others in beside):
                    shared[id(fetch(draft, str(node.target)))] = ["another part of the program"]
            where = Region(number, call.node.name, position)
            yield Part(part.module, "", Draft(root, copied, "Region"), region=where, shared=shared)


def _reads_tensor(draft: Draft, operand: Any) -> bool:
    node = operand if isinstance(operand, fx.Node) and operand.op == "get_attr" else None
    return node is not None and isinstance(fetch(draft, str(node.target)), Tensor)
