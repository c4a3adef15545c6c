"""Sums and differences of values: an affine of the whole is its scale for each, and its shift for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import fx

from fxfuse.algebra.affine import Affine
from fxfuse.graph.ranks import is_size
from fxfuse.operators.axes import reduced
from fxfuse.operators.joins import Stack
from fxfuse.operators.register import row
from fxfuse.operators.roles import Carrier
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping


class Term(NamedTuple):
    """A part of a sum.

    Attributes:
        value: what is added.
        factor: what it is multiplied with.
    """

    value: fx.Node
    factor: float


class Sum(Carrier):
    """``x + alpha * y``, by ordinary broadcasting; also in place."""

    def matches(self) -> bool:
        """Whether both are values; with a constant it is an affine."""
        operands = [self.call.get(name) for name in ("input", "other")]
        values = all(isinstance(o, fx.Node) and o not in self.call.graph.constants for o in operands)
        return values and not is_size(self.node)

    @property
    def signs(self) -> tuple[int, int]:
        """What the two operands are multiplied with, but for ``alpha``, which belongs to the second."""
        return 1, 1

    def terms(self) -> list[Term]:
        """Return what is added, each with its factor."""
        alpha = self.call.get("alpha", 1)
        require(type(alpha) in (int, float), Reason.COMPUTED, name="alpha", value=self.call.path)
        first, second = self.signs
        return [Term(self.call.arguments["input"], first), Term(self.call.arguments["other"], second * alpha)]

    @property
    def inputs(self) -> list[fx.Node]:
        """The values that are added."""
        return [term.value for term in self.terms()]

    @property
    def input(self) -> fx.Node:
        """The first value."""
        return self.inputs[0]

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sizes that are not one: one value may enlarge the other along axes of size one."""
        return self.call.graph.sizes.together(self.inputs)

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Give each value the scale, and the first one with a factor of one the shift."""
        terms = self.terms()
        bearer = next(number for number, term in enumerate(terms) if term.factor == 1)  # every sum has one
        nothing = torch.zeros_like(affine.shift)
        # scale * (x + y) + shift = (scale * x + shift) + scale * y
        rest = Affine(affine.scale, nothing, shifts=False)
        return [(term.value, affine if number == bearer else rest) for number, term in enumerate(terms)]

    def push(self, affine: Affine, source: fx.Node) -> Affine:
        """Refuse: the other values would not be scaled."""
        del affine, source
        self.require(condition=False)
        raise AssertionError  # it has refused


class Difference(Sum):
    """``x - alpha * y``."""

    @property
    def signs(self) -> tuple[int, int]:
        """The second one is taken off."""
        return 1, -1


class ReverseDifference(Sum):
    """``y - alpha * x``."""

    def terms(self) -> list[Term]:
        """Return what is added, each with its factor."""
        (first, _), (second, alpha) = super().terms()
        return [Term(first, -alpha), Term(second, 1)]


class SumOfStack(Sum):
    """``stack(values).sum(0)``, along the axis that the stack has made."""

    def matches(self) -> bool:
        """Whether a stack is summed along its own axis, and nobody else reads it."""
        value, graph = self.call.get("input"), self.call.graph
        if not isinstance(value, fx.Node):
            return False
        stack = graph.view(value) if graph.plays(value, Stack) and graph.users(value) == [self.node] else None
        if not isinstance(stack, Stack) or self.call.get("keepdim") or self.call.get("dtype") is not None:
            return False
        dims, axis = self.call.get("dim"), stack.call.get("dim", 0)
        return (list(dims) if isinstance(dims, (list, tuple)) else [dims]) == [axis]

    @property
    def reader(self) -> fx.Node:
        """The stack."""
        node: fx.Node = self.call.arguments["input"]
        return node

    def terms(self) -> list[Term]:
        """Return what is stacked."""
        stack = self.call.graph.view(self.reader)
        return [Term(value, 1) for value in stack.inputs] if stack is not None else []


# fmt: off
row("sum", SumOfStack, "input dim keepdim dtype", "sum", torch.sum, torch.ops.aten.sum.dim_IntList,
    rank=reduced, result="new")
