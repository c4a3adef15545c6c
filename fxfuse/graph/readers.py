"""Who reads which parameter: calls in a graph, and modules outside of it that hold the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import fx

    from fxfuse.graph.nodes import Nodes


class Readers:
    """The nodes of one graph that read each parameter and buffer, and where else these are held."""

    def __init__(self, graph: Nodes, holders: Mapping[int, Collection[str]]) -> None:
        """Look at all nodes of ``graph``.

        Args:
            graph: the graph.
            holders: the paths in the whole model under which each parameter is registered, by its id.
        """
        self.graph = graph
        self.holders = holders
        self._readers: dict[int, dict[fx.Node, None]] = {}
        for node in graph.nodes:
            self.note(node)
        self._called = {graph.path(node) for node in graph.nodes if node.op == "call_module"}
        # The forward of a module that holds a parameter, and reads it by name, is in this graph.
        read = ((id(tensor), node) for node in graph.nodes if node.op == "get_attr" for tensor in self._tensors(node))
        self._read = {(key, self._holder(node)) for key, node in read}

    def _holder(self, node: fx.Node) -> str:
        """Return the path in the whole model of the module that holds what a node reads by name."""
        return self.graph.in_model(str(node.target).rpartition(".")[0])

    def others(self, tensor: object, reader: fx.Node, apart_from: Collection[fx.Node] = ()) -> list[str]:
        """Return the paths of who else reads a parameter: by a call in this graph, or by name outside of it."""
        key = id(tensor)
        readers = self._readers.get(key, {})
        inside = [self.graph.path(node) for node in readers if node is not reader and node not in apart_from]
        holders = (path for path in self.holders.get(key, ()) if path not in self._called)
        outside = [path for path in holders if (key, path) not in self._read]
        return list(dict.fromkeys(inside + outside))

    def note(self, node: fx.Node) -> None:
        """Take a new or changed node into account."""
        for tensor in self._tensors(node):
            self._readers.setdefault(id(tensor), {})[node] = None

    def forget(self, node: fx.Node) -> None:
        """Leave a node out of account, before it is changed or erased."""
        for tensor in self._tensors(node):
            self._readers.get(id(tensor), {}).pop(node, None)

    def _tensors(self, node: fx.Node) -> Iterator[object]:
        module = self.graph.module(node)
        if module is not None:  # a search through the modules below costs more than all the rest
            yield from module.parameters() if module._modules else module._parameters.values()
        elif node.op == "get_attr":
            yield fetch(self.graph.graph_module, str(node.target))
