"""The answers of rules: what is to be done to a graph, computed and checked before the first edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, fx

    from fxfuse.graph.call import Call
    from fxfuse.graph.guard import Check, Guard
    from fxfuse.report.cost import Cost


@dataclass(frozen=True)
class Write:
    """An edit: a call gets new tensors; what is not named stays.

    Example:
        >>> import torch
        >>> from torch import fx, nn
        >>> from fxfuse import Report, fx_fuse
        >>> from fxfuse.extend import Graph, Linear, Plan, Write
        >>> def halve(graph: Graph, node: fx.Node) -> Plan | None:
        ...     if not graph.plays(node, Linear):
        ...         return None
        ...     call = graph.read(node)
        ...     return Plan(writes=(Write(call, {"weight": call.tensor("weight") / 2}),))
        >>> layer = nn.Linear(4, 2)
        >>> halved = fx_fuse(nn.Sequential(layer).eval(), rules=[halve])
        >>> torch.equal(halved.get_parameter("0.weight"), layer.weight / 2)
        True

    Attributes:
        call: the call.
        constants: the new tensors by argument, in the layout in which they are stored; None takes one away.
        through: operations that stay between a stored tensor and the call, by argument: a permutation of the weight.
        target: the function to call from now on, where the present one takes no bias; None to keep it.
        attributes: other attributes of a module, or arguments of a function, that change.
        trains: True if a weight that went into these tensors requires a gradient.
        sources: the constants of other operations that went into these tensors: two calls share a copy of a layer only
            where these are the same, and not where they are equal by chance.
    """

    call: Call
    constants: Mapping[str, Tensor | None]
    through: Mapping[str, fx.Node] = field(default_factory=dict)
    target: Callable[..., Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = False
    sources: tuple[Tensor, ...] = ()

    def after(self, earlier: Write) -> Write:
        """Return one edit for an earlier one of the same call, followed by this one."""
        constants, attributes = {**earlier.constants, **self.constants}, {**earlier.attributes, **self.attributes}
        through, target = {**earlier.through, **self.through}, self.target or earlier.target
        trains, sources = self.trains or earlier.trains, (*earlier.sources, *self.sources)
        return Write(self.call, constants, through, target, attributes, trains, sources)

    def is_like(self, other: Write) -> bool:
        """Whether another edit has the same attributes, and constants of the same origin, whatever their values."""
        same = {id(t) for t in self.sources} == {id(t) for t in other.sources}
        return same and dict(self.attributes) == dict(other.attributes)


@dataclass(frozen=True)
class Plan:
    """A rewrite: calls that get new tensors, and nodes that go.  A rule returns one, or None where it has none.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse import Report, fx_fuse
        >>> from fxfuse.extend import Graph, Plan
        >>> def drop_relu(graph: Graph, node: fx.Node) -> Plan | None:
        ...     row = graph.operator(node)
        ...     return Plan(bypass=((node, graph.read(node).input),)) if row and row.name == "relu" else None
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
        >>> [decision.path for decision in Report.of(fx_fuse(model, rules=[drop_relu])).folded]
        ['1']

    Attributes:
        writes: new tensors of calls.
        bypass: pairs of a node that goes and the value that its users read instead, in the order of removal.
        guard: the check that stays in place of one of these nodes, or None.
    """

    writes: tuple[Write, ...] = ()
    bypass: tuple[tuple[fx.Node, fx.Node], ...] = ()
    guard: Guard | None = None

    def check_at(self, node: fx.Node) -> Check | None:
        """Return what is checked in place of a bypassed node, None for nothing."""
        return self.guard.check if self.guard is not None and node in (self.guard.node, *self.guard.also) else None

    @property
    def assumed(self) -> bool:
        """Whether it rests on a number of axes that is only the usual one."""
        return self.guard is not None and self.guard.assumed

    @property
    def downstream(self) -> bool:
        """Whether values between the calls change: an affine went into later layers, or layers became one."""
        return False

    @property
    def hosts(self) -> tuple[fx.Node, ...]:
        """The calls that take something in."""
        return tuple(write.call.node for write in self.writes)

    @property
    def removed(self) -> tuple[fx.Node, ...]:
        """The nodes whose work is done by the hosts from now on: the report has a line for each."""
        return tuple(node for node, _ in self.bypass)

    @property
    def dropped(self) -> tuple[fx.Node, ...]:
        """The nodes that are computed no longer, from the last to the first, besides the bypassed ones."""
        return ()

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """All nodes that change or go."""
        return (*(w.call.node for w in self.writes), *(node for node, _ in self.bypass), *self.dropped)


@dataclass(frozen=True)
class Fold(Plan):
    """An affine goes into the layers before it or after it.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import DEFAULT_RULES, Graph
        >>> _, fold_upstream, *_ = DEFAULT_RULES
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> graph = Graph(fx.symbolic_trace(model))
        >>> fold = fold_upstream(graph, graph.nodes[2])
        >>> type(fold).__name__, fold.hosts, fold.removed, fold.downstream
        ('Fold', (_0,), (_1,), False)

    Attributes:
        downstream: True if it went into layers after it, which read other values from now on.
        stripped: a norm that loses its weight and bias, and goes on normalising; None for all others.
    """

    downstream: bool = False
    stripped: fx.Node | None = None

    @property
    def hosts(self) -> tuple[fx.Node, ...]:
        """The layers that take the affine in."""
        return tuple(node for node in super().hosts if node is not self.stripped)

    @property
    def removed(self) -> tuple[fx.Node, ...]:
        """The nodes that applied the affine."""
        return super().removed if self.stripped is None else (self.stripped,)


class ValueSlice(NamedTuple):
    """A value that becomes a slice of another one.

    Example:
        >>> from torch import fx
        >>> from fxfuse.extend import ValueSlice
        >>> ValueSlice(fx.Graph().placeholder("key"), axis=-1, start=64, length=64)
        ValueSlice(node=key, axis=-1, start=64, length=64)

    Attributes:
        node: the value.
        axis: the axis to slice along, counted from the last.
        start: the first position.
        length: the number of positions.
    """

    node: fx.Node
    axis: int
    start: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Merge(Plan):
    """Layers become one layer, which gives the result of all from now on.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import DEFAULT_RULES, Graph
        >>> *_, merge_chain, _, _ = DEFAULT_RULES
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2)).eval()))
        >>> merge = merge_chain(graph, graph.nodes[2])
        >>> type(merge).__name__, merge.hosts, merge.removed, merge.after.kernels
        ('Merge', (_0,), (_1,), 1)

    Attributes:
        start: the value that all of them are computed from, with as many axes as the result.
        result: the value that the layer gives from now on.
        merged: the operations that went into the layer, from the first to the last.
        before: what all of them cost.
        after: what the layer costs that is left.
        dropped: nodes that are computed no longer, from the last to the first, besides the bypassed ones.
        slices: values that become slices of the result.
    """

    start: fx.Node
    result: fx.Node
    merged: tuple[fx.Node, ...]
    before: Cost
    after: Cost
    dropped: tuple[fx.Node, ...] = ()
    slices: tuple[ValueSlice, ...] = ()

    @property
    def downstream(self) -> bool:
        """Values between the layers are no longer computed."""
        return True

    @property
    def removed(self) -> tuple[fx.Node, ...]:
        """The operations that went into the layer."""
        return self.merged
