"""Axes that come and go: unsqueeze, squeeze, expand and repeat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fxfuse.graph.uses import nodes_in
from fxfuse.operators.register import row
from fxfuse.operators.roles import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.registry import Axes, RankOf


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
        self.require(isinstance(sizes, (list, tuple)) and bool(sizes))
        return list(sizes)

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


def count(name: str) -> RankOf:
    """Return a function that counts the items of an argument; a single one may stand for a whole shape."""

    def counted(arguments: Mapping[str, Any], axes: Axes) -> int | None:  # noqa: ARG001 - the call alone says it
        listed = arguments.get(name)
        return len(listed) if isinstance(listed, (list, tuple)) and len(listed) > 1 else None

    return counted


def one_more(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    """Return the number of axes with a new one."""
    before = [axes(value) for value in nodes_in(arguments.get("input"), arguments.get("tensors"))]
    return next((axes + 1 for axes in before if axes is not None), None)


def one_less(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    """Return the number of axes without one."""
    before = axes(arguments.get("input"))
    return None if before is None else before - 1


def reduced(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    """Return the number of axes behind a mean or a sum along some of them."""
    dims, keep, before = arguments.get("dim"), arguments.get("keepdim", False), axes(arguments.get("input"))
    if before is None or dims in (None, (), []) or not isinstance(keep, bool):
        return None
    return before if keep else before - (len(dims) if isinstance(dims, (list, tuple)) else 1)


_aten = torch.ops.aten
# fmt: off
row("unsqueeze", NewAxis, "input dim", "unsqueeze", torch.unsqueeze, _aten.unsqueeze.default,
    rank=one_more, result="view")
row("squeeze", DroppedAxis, "input dim", "squeeze", torch.squeeze, _aten.squeeze.dim, _aten.squeeze.dims, result="view")
row("expand", Expand, "input *sizes", "expand", rank=count("sizes"), result="view")
row("expand", Expand, "input sizes implicit", _aten.expand.default, rank=count("sizes"), result="view")
row("repeat", Repeat, "input *sizes", "repeat", _aten.repeat.default, rank=count("sizes"), result="new")
