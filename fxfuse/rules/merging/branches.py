"""A value that a sum adds, with the steps from it to the sum and the routes that end at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from fxfuse.algebra.affine import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from fxfuse.rules.merging.routes import Obstacle, Route


class Step(NamedTuple):
    """An operation between a sum and what it adds.

    Attributes:
        node: the operation.
        operand: the value of the branch that it reads.
        above: the operation that reads its result; None for the sum itself.
    """

    node: fx.Node
    operand: fx.Node
    above: Step | None

    def upwards(self) -> Iterator[Step]:
        """Yield this step and all above it."""
        current: Step | None = self
        while current is not None:
            yield current
            current = current.above


@dataclass(frozen=True, eq=False)
class Branch:
    """A value that a sum adds.

    Attributes:
        value: what is added.
        affine: what the sum does to it.
        step: the operation that reads it, below all others between it and the sum.
        plain: True if only sums lie between.
        ways: the routes that end at the value, the shortest first.
        obstacle: what ends the longest of them.
        route: the one that was chosen.
    """

    value: fx.Node
    affine: Affine
    step: Step
    plain: bool
    ways: list[Route]
    obstacle: Obstacle | None
    route: Route

    def plain_over(self, host: Branch) -> Affine:
        """Return what the sum does to it, in terms of what it does to ``host``: factors without shifts."""
        scale = self.affine.scale / host.affine.scale
        return Affine(scale, torch.zeros_like(scale), shifts=False)
