"""Carriers that an affine passes as it is, or not at all."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from fxfuse.algebra.affine import Affine


class Passage(Carrier):
    """A carrier that an affine passes as it is, or not at all."""

    @property
    def spatial(self) -> int:
        """How many of the last axes may get other sizes."""
        return 0

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input that stay."""
        return {axis: size for axis, size in self.sizes_before().items() if axis < -self.spatial}

    @abstractmethod
    def passes(self, affine: Affine) -> None:
        """Refuse an affine that is not the same before and after."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Return the same affine for the only input."""
        self.passes(affine)
        return [(self.input, affine)]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Return the same affine."""
        self.passes(affine)
        return affine
