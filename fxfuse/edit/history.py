"""What became of the nodes of a graph, kept for whoever has to repeat the edits elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import fx, nn

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.guard import Check


# The position or name of an argument, and the number in it where it is a list.
Position: TypeAlias = "tuple[int | str, int | None]"


class Bypass(NamedTuple):
    """What became of a node that was taken out.

    Attributes:
        argument: the argument that its users read now.
        guard: what is checked in its place, or None.
        where: its path, for the message of the check.
    """

    argument: Position
    guard: Check | None
    where: str

    def value(self, node: fx.Node) -> fx.Node:
        """Return the same argument of a node."""
        key, number = self.argument
        argument: Any = node.args[key] if isinstance(key, int) else node.kwargs[key]
        value: fx.Node = argument if number is None else argument[number]
        return value


class Origin(NamedTuple):
    """Where a node stood before anything was changed.

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

    @staticmethod
    def of(graph: Graph, node: fx.Node) -> Origin:
        """Read the origin of a node from its metadata."""
        keys = [k for k, entry in (node.meta.get("nn_module_stack") or {}).items() if entry[0] != node.target]
        where = graph.owner(node), keys[-1] if keys else ""
        return Origin(graph.module(node), *where, node.target, tuple(node.all_input_nodes))


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
