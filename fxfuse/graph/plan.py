"""What a rule wants done, computed and checked before the first edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, fx

    from fxfuse.graph.call import Call
    from fxfuse.report.cost import Cost


@dataclass(frozen=True)
class Write:
    """An edit: this call gets these tensors; what is not named stays.

    Attributes:
        call: the call.
        constants: the new tensors, in the layout in which they are stored; None takes one away.
        through: operations that stay between what is stored and the call: the permutation of a weight, by argument.
        target: another function to call, where the present one has no argument for a bias; None to keep it.
        attributes: what else changes on a module, or of the arguments of a function.
        trains: some of the weights that went into these are to be trained.
    """

    call: Call
    constants: Mapping[str, Tensor | None]
    through: Mapping[str, fx.Node] = field(default_factory=dict)
    target: Callable[..., Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = False

    def after(self, earlier: Write) -> Write:
        """Return the edit that is an earlier one of the same call, and then this one."""
        constants, attributes = {**earlier.constants, **self.constants}, {**earlier.attributes, **self.attributes}
        through, target = {**earlier.through, **self.through}, self.target or earlier.target
        return Write(self.call, constants, through, target, attributes, self.trains or earlier.trains)


@dataclass(frozen=True)
class Plan:
    """A whole rewrite, computed and checked before the first write.

    Attributes:
        writes: new constants of calls.
        bypass: pairs of a node that goes and the value that its users read instead, in the order of removal.
        stripped: calls that lost their affine, and stay.
        onwards: values between are others now: an affine went into what follows, or layers became one.
        dropped: what is computed no longer, from the last to the first.
        merge: what a merge makes of the operations that it removes, or None.
        parts: values that become parts of what the first written call gives.
        guard: the number of axes to check, or None.
        guarded: the bypassed node in whose place it is checked; None for the last.
        assumed: that number is only usual.
    """

    writes: tuple[Write, ...] = ()
    bypass: tuple[tuple[fx.Node, fx.Node], ...] = ()
    guard: int | None = None
    assumed: bool = False
    guarded: fx.Node | None = None
    stripped: tuple[fx.Node, ...] = ()
    onwards: bool = False
    dropped: tuple[fx.Node, ...] = ()
    merge: Merge | None = None
    parts: tuple[Part, ...] = ()


class Part(NamedTuple):
    """A value that becomes a part of another one.

    Attributes:
        node: the value.
        axis: the axis along which it is a part, counted from the last.
        start: where it begins there.
        length: how long it is there.
    """

    node: fx.Node
    axis: int
    start: int
    length: int


@dataclass(frozen=True)
class Merge:
    """What is told of a merge.

    Attributes:
        start: the value that all of them are computed from, with as many axes as what they give.
        result: the value that the layer gives from now on.
        gone: the operations that went into another one.
        before: what all of them cost.
        after: what the one costs that is left.
    """

    start: fx.Node
    result: fx.Node
    gone: tuple[fx.Node, ...]
    before: Cost
    after: Cost
