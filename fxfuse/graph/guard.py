"""What a fold leaves in the place of a node: another value, and perhaps a check of its number of axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.nodes import Position


class Check(NamedTuple):
    """A number of axes, or the least number."""

    axes: int
    or_more: bool


class Guard(NamedTuple):
    """A check that stays in the model: it raises unless a value has the number of axes that a fold relies on.

    Example:
        >>> import torch
        >>> from torch import fx, nn
        >>> from fxfuse import fx_fuse
        >>> from fxfuse.extend import Graph, Guard, Plan
        >>> def drop_relu(graph: Graph, node: fx.Node) -> Plan | None:
        ...     row = graph.operator(node)
        ...     if row is None or row.name != "relu":
        ...         return None
        ...     return Plan(bypass=((node, graph.read(node).input),), guard=Guard(node, axes=2))
        >>> model = fx_fuse(nn.Sequential(nn.ReLU()).eval(), rules=[drop_relu])
        >>> model(torch.tensor([[-3.0]]))
        tensor([[-3.]])
        >>> model(torch.tensor([-3.0]))
        Traceback (most recent call last):
        ValueError: fxfuse folded '0' for inputs with 2 axes there, batch included, and got one with 1...

    Attributes:
        node: a bypassed node; the value that its users read instead is checked.
        axes: the number of axes, batch included.
        assumed: True if this number is only the usual one; False if it was seen on example inputs.
        or_more: True if a value with more axes is right as well.
        also: other bypassed nodes where the same is checked: one module may be called there.
    """

    node: fx.Node
    axes: int
    assumed: bool = False
    or_more: bool = False
    also: tuple[fx.Node, ...] = ()

    @property
    def check(self) -> Check:
        """What is checked, wherever."""
        return Check(self.axes, self.or_more)


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
