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
    """A carrier that an affine passes as it is, or not at all.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fxfuse import fx_fuse
        >>> from fxfuse.extend import Passage, register
        >>> class Mirrored(nn.Module):
        ...     def forward(self, input):
        ...         return input.flip(-1)
        >>> class Mirror(Passage):
        ...     def passes(self, affine):
        ...         self.require(affine.size(-1) == 1)  # the same wherever an element goes
        >>> row = register("mirror", Mirror, arguments=["input"], modules=[Mirrored])
        >>> layers = nn.Conv2d(3, 8, 3), Mirrored(), nn.BatchNorm2d(8)
        >>> [name for name, _ in fx_fuse(nn.Sequential(*layers).eval()).named_children()]
        ['0', '1']
    """

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
