"""The nodes of a graph: what each calls, and what it is called in reports, in the words of the user's model."""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fxfuse.graph.registry import row_at, row_of, tuple_row
from fxfuse.modules.lookup import fetch
from fxfuse.modules.origin import is_torchs_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx, nn

    from fxfuse.graph.registry import Operator

LEFT_WHOLE = "fxfuse_left_whole"
"""Where a node notes why its module was not traced."""

UNTRACED = "fxfuse_untraced"
"""Where a node of a recorded run notes that code called it which was not traced: it stays as it is."""

PIECES = "fxfuse_pieces"
"""Where it notes that such code cut a value along its first axis: the pieces may be handed on, each as the value."""

PART = "fxfuse_part"
"""Where a node of a recorded run notes the call of a traced module that it is part of."""

RETURNED = "fxfuse_returned"
"""Where a node of a recorded run notes the call of a traced module of which it is the whole result."""

Position: TypeAlias = "tuple[int | str, int | None]"
"""The position or name of an argument, and the number in it where it is a list."""

_OF_DYNAMO = re.compile(r"^L\['\w+'\]\.?")  # how Dynamo calls the model itself


def name_of_target(target: Any, default: str) -> str:
    """Return the name of a function, of the operator that an overload belongs to, or of a method."""
    target = getattr(target, "overloadpacket", target)
    return target if isinstance(target, str) else str(getattr(target, "__name__", default))


def _innermost(node: fx.Node) -> tuple[Any, Any]:
    """Return the path and the class of the innermost module on the stack of a node, empty where there is none."""
    return next(reversed((node.meta.get("nn_module_stack") or {}).values()), ("", ""))


class Origin(NamedTuple):
    """What a node was before anything was changed.

    Attributes:
        module: the module that it called, if it called one.
        owner: the path, within the captured module, of the module in whose forward it stood.
        instance: which call of the owner it belonged to.
        target: what it called, by path for a module.
        inputs: the nodes that it read.
    """

    module: nn.Module | None
    owner: str
    instance: str
    target: object
    inputs: tuple[fx.Node, ...]


class Nodes:
    """The nodes of a graph: what each calls, where it stands in the user's model, and its name in reports.

    Attributes:
        graph_module: the graph, with the modules and tensors that it refers to.
        prefix: the path of the captured module in the user's model.
    """

    def __init__(self, graph_module: fx.GraphModule, prefix: str = "") -> None:
        """Look at ``graph_module``, which was captured from the module at ``prefix``."""
        self.graph_module = graph_module
        self.prefix = prefix
        self._modules: dict[object, nn.Module] = {}  # by the target of a node
        self._sources = dict(first_items(graph_module.graph))
        self._values = {source: value for value, source in self._sources.items()}

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes in order."""
        return list(self.graph_module.graph.nodes)

    def source(self, node: fx.Node) -> fx.Node:
        """Return the call that gives a value: the node, or the call of which the node takes the first result."""
        return self._sources.get(node, node)

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""
        if node.op != "call_module":
            return None
        target = node.target
        if target not in self._modules:
            self._modules[target] = fetch(self.graph_module, str(target))
        return self._modules[target]

    def place(self, target: str, module: nn.Module) -> None:
        """Put a module into the GraphModule, in place of the one that is there."""
        container, _, name = target.rpartition(".")
        holder = fetch(self.graph_module, container) if container else self.graph_module
        holder._modules[name] = module
        self._modules[target] = module

    def row(self, node: fx.Node) -> Operator | None:
        """Return the row of the table for what a node calls, also if it plays no role."""
        module = self.module(node)
        return row_at(node) if module is None else row_of(module)

    @abstractmethod
    def operator(self, node: fx.Node) -> Operator | None:
        """Return the row of the table for what a node calls, if it plays a role."""

    def owner(self, node: fx.Node) -> str:
        """Return the path, within the captured module, of the module whose forward contains the call."""
        stack = node.meta.get("nn_module_stack") or {}
        last = reversed(stack.values())
        found = str(next(last, ("",))[0])
        if node.op == "call_module" and found == node.target:
            found = str(next(last, ("",))[0])
        return _OF_DYNAMO.sub("", found) if found.startswith("L[") else found

    def origin(self, node: fx.Node) -> Origin:
        """Return what a node is now."""
        keys = [k for k, entry in (node.meta.get("nn_module_stack") or {}).items() if entry[0] != node.target]
        instance = keys[-1] if keys else ""
        return Origin(self.module(node), self.owner(node), instance, node.target, tuple(node.all_input_nodes))

    def path(self, node: fx.Node) -> str:
        """Return where the user finds a node: a module's path, or the path of its owner, or its name."""
        inner = str(node.target) if node.op == "call_module" else self.owner(node)
        return self.in_model(inner) or node.name

    def in_model(self, path: str) -> str:
        """Return the path in the user's model of what is at a path within the captured module."""
        return f"{self.prefix}.{path}" if self.prefix and path else self.prefix + path

    def kind(self, node: fx.Node) -> str:
        """Return the class or function that does the operation."""
        module = self.module(node)
        if module is not None:
            return type(module).__name__
        row = self.operator(node)
        return row.name if row else node.name

    def owner_class(self, node: fx.Node) -> type | None:
        """Return the class of the module in whose forward a node stands, if that is known."""
        cls = _innermost(node)[1]
        return cls if isinstance(cls, type) else None

    def owner_kind(self, node: fx.Node) -> str:
        """Return the class of the module that does the operation in its forward, or the kind of the node."""
        cls = _innermost(node)[1]
        if node.op == "call_module" or not cls:
            return self.kind(node)
        return cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]

    def describe(self, node: fx.Node) -> str:
        """Return a node for a sentence: a module by its path, a function by its name and where it stands.

        What torch.export made of one of torch's own layers is called by the path of the layer.
        """
        if node.op == "placeholder":
            return "the input"
        if node.op == "output":
            return "the output"
        if LEFT_WHOLE in node.meta:
            return f"{self.path(node)} (left whole: {node.meta[LEFT_WHOLE]})"
        if node.op == "call_module" or self._is_layer(node):
            return self.path(node)
        name, owner = name_of_target(node.target, node.name), self.owner(node)
        where = (self.in_model(owner) or node.name) if owner or self.prefix else "the outermost forward"
        return f"{name.rstrip('_')} in {where}"

    def _is_layer(self, node: fx.Node) -> bool:
        """Whether a function stands for one of torch's own layers."""
        cls = _innermost(node)[1]
        return is_torchs_layer(cls) if isinstance(cls, type) else str(cls).startswith("torch.nn.modules.")

    def names(self, nodes: list[fx.Node]) -> str:
        """Return a few nodes by their paths, for a sentence."""
        paths = list(dict.fromkeys(map(self.describe, nodes)))
        return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def first_items(graph: fx.Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield the nodes that take the first result of a call that gives a tuple, each with the call."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
            source = node.args[0]
            if tuple_row(source) is not None:
                yield node, source


def position_of(node: fx.Node, value: fx.Node) -> Position:
    """Return which argument of a node a value is, within a list by its number there."""
    arguments: list[tuple[int | str, object]] = [*enumerate(node.args), *node.kwargs.items()]
    for key, argument in arguments:
        if argument is value:
            return key, None
        if isinstance(argument, (list, tuple)):
            for number, item in enumerate(argument):
                if item is value:
                    return key, number
    raise AssertionError(f"{value} is no argument of {node}")  # a plan bypasses a node by what it reads
