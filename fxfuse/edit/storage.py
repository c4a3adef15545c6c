"""Where new modules and parameters go in a GraphModule: under their old names wherever these are free."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from torch import fx, nn

from fxfuse.graph.lazy_graph_module import hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from fxfuse.graph.graph import Graph


class Storage:
    """The names of one GraphModule, and the nodes that need what is stored under them."""

    def __init__(self, graph: Graph) -> None:
        """Index the names that nodes refer to."""
        self.graph = graph
        self.root = graph.graph_module
        self._needed: dict[str, dict[fx.Node, None]] = defaultdict(dict)
        for node in graph.nodes:
            self.note(node)

    def note(self, node: fx.Node) -> None:
        """Take into account what a node refers to."""
        for name in _names(node):
            self._needed[name][node] = None
        self.graph.readers.note(node)

    def forget(self, node: fx.Node) -> None:
        """Leave a node out of account, before it is changed or erased."""
        for name in _names(node):
            self._needed[name].pop(node, None)
        self.graph.readers.forget(node)

    def place_module(self, node: fx.Node, module: nn.Module) -> None:
        """Let a node call another module, at the old path, or beside it where others still need the old one."""
        target = str(node.target)
        self.forget(node)
        if not self.is_free(target):
            target = self._free(target)
        self.graph.place(target, module)
        self.retarget(node, target)

    def is_free(self, target: str) -> bool:
        """Whether no node needs what is stored at a path, and the pass may put something else there."""
        return not self._needed[target] and self._is_ours(target.rpartition(".")[0])

    def retarget(self, node: fx.Node, target: str) -> None:
        """Let a node refer to another path."""
        self.forget(node)
        node.target = target
        self.note(node)

    def store(self, path: str, tensor: Tensor) -> str:
        """Register a parameter or buffer at a path if nothing reads what is there, else beside it; return where."""
        if self._needed[path] or not self._is_ours(path.rpartition(".")[0], make=True):
            path = self._free(path)
        container, _, name = path.rpartition(".")
        holder = self.root.get_submodule(container)
        for place in (holder._buffers, holder._modules, holder.__dict__):
            place.pop(name, None)
        hold(holder, name, tensor)
        return path

    def _is_ours(self, container: str, *, make: bool = False) -> bool:
        """Whether every module on the way is an empty one of the GraphModule, and none is the user's.

        Args:
            container: the path.
            make: make those that are not there.
        """
        current: nn.Module = self.root
        for name in container.split(".") if container else []:
            if make and name not in current._modules:
                current.add_module(name, nn.Module())
            child = current._modules.get(name)
            if child is None or type(child) is not nn.Module:
                return False
            current = child
        return True

    def _free(self, path: str) -> str:
        """Return an unused path beside another one, or at the root where a module of the user's is in the way."""
        container, _, name = path.rpartition(".")
        if not self._is_ours(container):
            container, name = "", path.replace(".", "_")
        holder, number = self.root.get_submodule(container), 1
        while hasattr(holder, f"{name}_{number}"):
            number += 1
        return f"{container}.{name}_{number}".lstrip(".")


def _names(node: fx.Node) -> Iterator[str]:
    """Yield the path that a node refers to, and for a tensor also those of the modules that hold it."""
    if node.op not in ("call_module", "get_attr"):
        return
    name = str(node.target)
    yield name
    yield from paths_above(name)


def paths_above(path: str) -> Iterator[str]:
    """Yield the paths of the modules that hold what is at a path, the innermost first."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
