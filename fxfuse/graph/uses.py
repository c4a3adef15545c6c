"""What nodes read and write into, and who reads which parameter."""

from __future__ import annotations

import functools
import inspect
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from fxfuse.graph.registry import COMPUTES, row_at
from fxfuse.modules.lookup import fetch, look_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from torch import nn

    from fxfuse.graph.nodes import Nodes


def uses(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node reads, once for each time it reads them: ``cat([y, y])`` reads y twice."""
    row = row_at(node)
    if row is None or row.like is None:
        return nodes_in(node.args, node.kwargs)
    return nodes_in([value for name, value in row.passed(node).items() if name != row.like])


def first_operand(node: fx.Node) -> fx.Node | None:
    """Return the value that a node transforms: what is passed first, or as ``input``."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def nodes_in(*arguments: Any) -> list[fx.Node]:
    """Return the nodes among some arguments, and in the lists and dictionaries among them."""
    found: list[fx.Node] = []
    pending: list[Any] = list(arguments)
    while pending:
        item = pending.pop()
        if isinstance(item, fx.Node):
            found.append(item)
        elif isinstance(item, slice):
            pending += [item.start, item.stop, item.step]
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (tuple, list)):
            pending += item
    return found


def asks_shape(node: fx.Node) -> bool:
    """Whether a node sees no values, only shape, dtype or device: an affine leaves the answer alone."""
    return _asks(node, ("shape", "rank"), ("shape", "ndim", "dtype", "device", "is_cuda"))


def asks_rank(node: fx.Node) -> bool:
    """Whether a node only sees how many axes a value has."""
    return _asks(node, ("rank",), ("ndim",))


def _asks(node: fx.Node, answers: tuple[str, ...], attributes: tuple[str, ...]) -> bool:
    row = row_at(node)
    if row is not None:
        # A check returns its input, which somebody may read.
        return row.asks in answers and not (row.result == "view" and node.users)
    return node.op == "call_function" and node.target is getattr and node.args[1] in attributes


def mutated(node: fx.Node, module: nn.Module | None) -> Iterable[fx.Node]:
    """Yield the inputs that a node changes in place, also those in lists.

    Args:
        node: the node.
        module: the module that it calls, if it calls one.
    """
    if module is not None:
        if look_up(module, "inplace", default=False):
            yield from _first_argument(node)
        return
    schema = _schema(node.target) if node.op == "call_function" else None
    if schema is not None and schema.name not in _CHANGE_NO_VALUES:
        writes = {argument.name: argument.is_write for argument in schema.arguments}
        passed = [*zip(writes.values(), node.args, strict=False), *((writes[n], a) for n, a in node.kwargs.items())]
        yield from (value for written, argument in passed if written for value in nodes_in(argument))
    elif schema is None:
        if _changes_first_argument(node):
            yield from _first_argument(node)
        yield from nodes_in(node.kwargs.get("out"))
    yield from _moved_statistics(node)


def _schema(target: Any) -> Any:
    """Return what an overload says of itself; of a custom operator called without one, its only one says it."""
    packet = isinstance(target, torch._ops.OpOverloadPacket)
    return getattr(getattr(target, target.overloads()[0]) if packet else target, "_schema", None)


def _first_argument(node: fx.Node) -> list[fx.Node]:
    return nodes_in(node.args[0] if node.args else node.kwargs.get("input"))


def _moved_statistics(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the running statistics that a norm in training mode moves, of which no schema tells."""
    row, schema = row_at(node), _schema(node.target)
    gives_them_back = schema is not None and schema.name.endswith("_functional")
    if row is None or "running_mean" not in row.arguments or gives_them_back:
        return
    passed = row.passed(node)
    # torch's defaults: F.batch_norm does not train, F.instance_norm does.
    flags = [(name, default) for name, default in _TRAINS.items() if name in row.arguments]
    if any(passed.get(name, default) is not False for name, default in flags):
        yield from nodes_in(passed.get("running_mean"), passed.get("running_var"))


_CHANGE_NO_VALUES = ("aten::detach_", "aten::requires_grad_")
_TRAINS = {"training": False, "use_input_stats": True}


def _changes_first_argument(node: fx.Node) -> bool:
    if node.op not in COMPUTES:
        return False
    row = row_at(node)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")  # torch's own convention
    return in_place or (row is not None and row.result == "in place") or _passes_inplace(node)


def _passes_inplace(node: fx.Node) -> bool:
    """Whether ``F.relu(x, inplace=True)`` was meant, by name or by position."""
    if "inplace" in node.kwargs:
        return bool(node.kwargs["inplace"])
    position = _inplace_position(node.target) if node.op == "call_function" else None
    return position is not None and len(node.args) > position and bool(node.args[position])


@functools.cache
def _inplace_position(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return None
    return names.index("inplace") if "inplace" in names else None


class Readers:
    """Who reads each parameter and buffer: nodes of one graph, and modules outside of it that hold the same one."""

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


def size_asked_for(size: fx.Node) -> tuple[fx.Node | None, object]:
    """Return whose size along which axis a node asks for."""
    if size.op == "call_method" and size.target == "size" and len(size.args) == 2:
        return size.all_input_nodes[0], size.args[1]
    source = size.args[0] if size.target is operator.getitem else None
    asks = isinstance(source, fx.Node) and source.target in (getattr, "size") and len(source.all_input_nodes) == 1
    if not asks or not isinstance(source, fx.Node):
        return None, None
    shape = source.target == "size" or source.args[1:] == ("shape",)
    return (source.all_input_nodes[0], size.args[1]) if shape else (None, None)
