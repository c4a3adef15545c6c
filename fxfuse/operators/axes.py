"""Axes that come and go: unsqueeze, squeeze, expand and repeat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fxfuse.operators.register import register
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine


class NewAxis(Carrier):
    """``unsqueeze``: an axis of size one."""

    def _axis(self) -> int:
        return self.from_last(self.call.get("dim"), new=True)

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input, moved, and the one."""
        new = self._axis()
        return {new: 1, **{axis if axis > new else axis - 1: size for axis, size in self.sizes_before().items()}}

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Take the axis away."""
        axis = self._axis()
        self.require(affine.size(axis) == 1)
        return [(self.input, affine.without_axis(axis).trimmed())]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Put the axis in."""
        return affine.trimmed().with_axis(self._axis())


class DroppedAxis(Carrier):
    """``squeeze(x, dim)``, where the size along the axis is known to be one."""

    def _axis(self) -> int:
        axis = self.call.get("dim")
        axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
        axis = self.from_last(axis)
        self.require(self.require_size(self.input, axis) == 1)
        return axis

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input, moved."""
        gone = self._axis()
        before = self.sizes_before().items()
        return {axis if axis > gone else axis + 1: size for axis, size in before if axis != gone}

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put the axis in."""
        return [(self.input, affine.trimmed().with_axis(self._axis()))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Take the axis away."""
        axis = self._axis()
        self.require(affine.size(axis) == 1)
        return affine.without_axis(axis).trimmed()


class Copies(Carrier):
    """An operation that repeats a value along some axes, and may add axes in front."""

    def _listed(self) -> list[Any]:
        sizes = self.call.get("sizes")
        listed = list(sizes) if isinstance(sizes, (list, tuple)) else list(self.call.graph.source(self.node).args[1:])
        self.require(bool(listed))
        return listed

    def _stays(self, axis: int, asked: object) -> bool:
        """Whether the axis, counted from the last, is as it was."""
        raise NotImplementedError

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Return the same affine, if it varies along nothing that is repeated."""
        listed, full = self._listed(), affine.trimmed()
        self.require(full.rank <= len(listed))
        for axis in range(-full.rank, 0):
            self.require(full.size(axis) == 1 or self._stays(axis, listed[axis]))
        return [(self.input, full)]


class Expand(Copies):
    """``x.expand(*sizes)``: along axes of size one; -1 stands for an axis that stays."""

    gives_view: ClassVar[bool] = True
    repeats_memory: ClassVar[bool] = True

    def _stays(self, axis: int, asked: object) -> bool:
        return asked == -1 or (isinstance(asked, int) and self.call.graph.sizes.along(self.input, axis) == asked)

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Return the same affine: it has one size wherever the value has."""
        return affine


class Repeat(Copies):
    """``x.repeat(*times)``."""

    def _stays(self, axis: int, asked: object) -> bool:  # noqa: ARG002 - whatever the axis
        return asked == 1

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Repeat the affine along the axes along which it varies."""
        listed, full = self._listed(), affine.trimmed()
        self.require(full.rank <= len(listed))
        times = listed[len(listed) - full.rank :]

        def repeated(whole: Tensor) -> Tensor:
            counts = [n if size > 1 else 1 for n, size in zip(times, whole.shape, strict=True)]
            self.require(all(isinstance(n, int) for n in counts))
            self.require_small(math.prod([whole.numel(), *counts]))
            return whole.repeat(counts)

        return full.with_rank(full.rank).rearrange(repeated)


_aten = torch.ops.aten

register(
    "unsqueeze",
    NewAxis,
    arguments=("input", "dim"),
    methods=["unsqueeze"],
    functions=[torch.unsqueeze, _aten.unsqueeze.default],
)
register(
    "squeeze",
    DroppedAxis,
    arguments=("input", "dim"),
    methods=["squeeze"],
    functions=[torch.squeeze, _aten.squeeze.dim, _aten.squeeze.dims],
)
register(
    "expand", Expand, arguments=("input", "sizes", "implicit"), methods=["expand"], functions=[_aten.expand.default]
)
register("repeat", Repeat, arguments=("input", "sizes"), methods=["repeat"], functions=[_aten.repeat.default])
