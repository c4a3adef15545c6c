"""Average pools and means: their weights add up to one, so what is constant along the averaged axes passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.algebra.filters import Filter
from fxfuse.algebra.geometry import fits
from fxfuse.graph.call import call_of
from fxfuse.operators.axes import reduced
from fxfuse.operators.register import SAME_RANK, row
from fxfuse.operators.roles import Carrier
from fxfuse.operators.spatial import Spatial
from fxfuse.operators.windows import geometry_of, numbers
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.graph import Graph


class AdaptivePool(Spatial):
    """An average pool that is told the sizes of its result."""

    def known_sizes(self) -> Mapping[int, int]:
        """Return what was asked for as well."""
        size = self.call.get("output_size")
        listed = size if isinstance(size, (list, tuple)) else [size] * self.spatial
        asked = {axis - self.spatial: n for axis, n in enumerate(listed) if isinstance(n, int)}
        return {**super().known_sizes(), **asked}


class Pool(Spatial):
    """An average pool, which may read padded zeros."""

    def passes(self, affine: Affine) -> None:
        """Refuse a shift that padded zeros would lower, and sums that are divided by another number."""
        super().passes(affine)
        self.require(self.call.get("divisor_override") is None)
        padding = self.call.get("padding")
        padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
        counted = padded and bool(self.call.get("count_include_pad", True))
        require(not counted or not affine.shifts, Reason.ZERO_PADDING, value=self.call.path)

    def filter(self, channels: int) -> Filter:
        """Return the pool as a depth-wise convolution.

        Raises:
            Misfit: if it is none: it rounds up, or does not count what it pads.
        """
        taps = numbers(self.call.get("kernel_size"), self.spatial)
        geometry = geometry_of(self.call, taps, default_stride=taps)
        counts = not geometry.padded or bool(self.call.get("count_include_pad", True))
        fits(counts and not self.call.get("ceil_mode"), f"{self.call.path} counts what it pads in another way")
        return Filter.average(channels, geometry, self.call.get("divisor_override") or math.prod(taps))


class Mean(Carrier):
    """The mean along some axes, which stay with size one or go."""

    def _axes(self) -> tuple[int, list[int]]:
        """Return the number of axes of the input, and which are averaged."""
        dims = self.call.get("dim")
        listed = list(dims) if isinstance(dims, (list, tuple)) else [dims]
        # No axes at all stand for all of them.
        self.require(bool(listed) and all(isinstance(d, int) for d in listed) and self.call.get("dtype") is None)
        before = self.call.rank(self.input)
        if before is not None and before.proven:
            rank = self.require_axes(self.input)
        else:
            rank = self.require_axes_of_result() + (0 if self._stay else len(listed))
        return rank, sorted(d % rank for d in listed)

    @property
    def _stay(self) -> bool:
        return bool(self.call.get("keepdim"))

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put axes of size one where they were averaged."""
        rank, axes = self._axes()
        full = affine.trimmed()
        self.require(full.rank <= (rank if self._stay else rank - len(axes)))
        full = full.with_rank(rank if self._stay else rank - len(axes))
        for axis in () if self._stay else axes:
            full = full.rearrange(lambda t, axis=axis: t.unsqueeze(axis))  # type: ignore[misc] # bound at once
        self._require_constant(full, axes)
        return [(self.input, full.trimmed())]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Leave out the averaged axes, along which the affine does not vary."""
        rank, axes = self._axes()
        self.require(affine.trimmed().rank <= rank)
        full = affine.trimmed().with_rank(rank)
        self._require_constant(full, axes)
        return (full if self._stay else full.rearrange(lambda t: t.squeeze(tuple(axes)))).trimmed()

    def known_sizes(self) -> Mapping[int, int]:
        """Return the ones that the mean leaves."""
        if not self._stay:
            return {}
        self.require_axes(self.input)  # the check of a norm proves a number of axes for its own fold alone
        rank, axes = self._axes()
        return {**self.sizes_before(), **{axis - rank: 1 for axis in axes}}

    def _require_constant(self, full: Affine, axes: list[int]) -> None:
        self.require(not any(t.shape[axis] > 1 for t in (full.scale, full.shift) for axis in axes))


def mean_of_image(graph: Graph, node: fx.Node) -> tuple[fx.Node, Any, bool] | None:
    """Return which value a node averages over the axes of an image, how it names them, and whether they stay."""
    row = graph.row(node)
    if row is None or row.name not in ("mean", "adaptive_avg_pool2d"):
        return None
    try:
        call = call_of(graph, node, row)
    except Refusal:
        return None
    if row.name == "mean":
        axes = call.get("dim")
        known = axes in ([2, 3], (2, 3), [-2, -1], (-2, -1)) and call.get("dtype") is None
        return (call.input, axes, bool(call.get("keepdim"))) if known else None
    return (call.input, (-2, -1), True) if call.get("output_size") in (1, [1, 1], (1, 1)) else None


_aten = torch.ops.aten
_POOL = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
_ADAPTIVE = "input output_size"
# fmt: off
row("avg_pool1d", Pool, _POOL, nn.AvgPool1d, F.avg_pool1d, _aten.avg_pool1d.default, spatial=1, **SAME_RANK)
row("avg_pool2d", Pool, _POOL, nn.AvgPool2d, F.avg_pool2d, _aten.avg_pool2d.default, spatial=2, **SAME_RANK)
row("avg_pool3d", Pool, _POOL, nn.AvgPool3d, F.avg_pool3d, _aten.avg_pool3d.default, spatial=3, **SAME_RANK)
row("adaptive_avg_pool1d", AdaptivePool, _ADAPTIVE,
    nn.AdaptiveAvgPool1d, F.adaptive_avg_pool1d, _aten.adaptive_avg_pool1d.default, spatial=1, **SAME_RANK)
row("adaptive_avg_pool2d", AdaptivePool, _ADAPTIVE, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d,
    _aten.adaptive_avg_pool2d.default, _aten._adaptive_avg_pool2d.default, spatial=2, **SAME_RANK)
row("adaptive_avg_pool3d", AdaptivePool, _ADAPTIVE, nn.AdaptiveAvgPool3d, F.adaptive_avg_pool3d,
    _aten.adaptive_avg_pool3d.default, _aten._adaptive_avg_pool3d.default, spatial=3, **SAME_RANK)
row("mean", Mean, "input dim keepdim dtype", "mean", torch.mean, _aten.mean.dim, rank=reduced, axes="dim",
    result="new")
