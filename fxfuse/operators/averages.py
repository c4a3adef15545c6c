"""Averages and interpolations: their weights add up to one, so what is constant along the averaged axes passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.operator_table import register
from fxfuse.operators.roles import Carrier
from fxfuse.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.affine import Affine


class Average(Carrier):
    """An operation that averages along some trailing axes, and keeps their number."""

    spatial = 2

    def _passes(self, affine: Affine) -> Affine:
        """Return the affine, if it does not vary along the averaged axes."""
        trimmed = affine.trimmed()
        shapes = (trimmed.scale.shape, trimmed.shift.shape)
        varies = any(size > 1 for shape in shapes for size in shape[-self.spatial :])
        require(not varies, Reason.NOT_LINEAR, value=self.call.path)
        self._require_whole(trimmed)
        return trimmed

    def _require_whole(self, affine: Affine) -> None:
        """Refuse a shift that padded zeros would lower, and sums that are divided by another number."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Return the same affine."""
        return [(self.input, self._passes(affine))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Return the same affine."""
        return self._passes(affine)


class Average1d(Average):
    """Along the last axis."""

    spatial = 1


class Average3d(Average):
    """Along the last three axes."""

    spatial = 3


class Pool(Average):
    """An average pool, which may read padded zeros."""

    def _require_whole(self, affine: Affine) -> None:
        divisor = self.call.get("divisor_override", None)
        require(divisor is None, Reason.NOT_LINEAR, value=self.call.path)
        padding = self.call.get("padding", 0)
        padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
        counted = padded and bool(self.call.get("count_include_pad", True))
        require(not counted or not affine.shift.any(), Reason.ZERO_PADDING, value=self.call.path)


class Pool1d(Pool):
    """Along the last axis."""

    spatial = 1


class Pool3d(Pool):
    """Along the last three axes."""

    spatial = 3


class Mean(Carrier):
    """The mean along some axes, which stay with size one or go."""

    def _axes(self, keeps: Affine, known: int | None) -> tuple[int, list[int], bool]:
        """Return the number of axes of the input, which are averaged, and whether they stay."""
        dims, stay = self.call.get("dim", None), bool(self.call.get("keepdim", False))
        listed = list(dims) if isinstance(dims, (list, tuple)) else [dims]
        require(all(isinstance(d, int) for d in listed), Reason.NOT_LINEAR, value=self.call.path)
        require(self.call.get("dtype", None) is None, Reason.NOT_LINEAR, value=self.call.path)
        require(known is None or keeps.rank <= known, Reason.NOT_LINEAR, value=self.call.path)
        if known is None:
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self.call.graph.describe(self.input), detail="not known")
        return known, sorted(d % known for d in listed), stay

    def _known(self) -> int | None:
        rank = self.call.rank(self.input)
        return rank.axes if rank is not None and rank.proven else None

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Put axes of size one where they were averaged."""
        trimmed = affine.trimmed()
        rank, axes, stay = self._axes(trimmed, self._known())
        full = trimmed.with_rank(rank if stay else rank - len(axes))
        if not stay:
            for axis in axes:
                full = full.rearrange(lambda t, axis=axis: t.unsqueeze(axis))  # type: ignore[misc] # bound at once
        self._require_constant(full, axes)
        return [(self.input, full.trimmed())]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Leave out the averaged axes, along which the affine does not vary."""
        rank, axes, stay = self._axes(affine.trimmed(), self._known())
        full = affine.trimmed().with_rank(rank)
        self._require_constant(full, axes)
        return (full if stay else full.rearrange(lambda t: t.squeeze(tuple(axes)))).trimmed()

    def _require_constant(self, full: Affine, axes: list[int]) -> None:
        varies = any(t.shape[axis] > 1 for t in (full.scale, full.shift) for axis in axes)
        require(not varies, Reason.NOT_LINEAR, value=self.call.path)


_aten = torch.ops.aten
_POOL = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_rows: tuple[tuple[str, Any, Any, Any, list[Any]], ...] = (
    ("1d", Pool1d, Average1d, (nn.AvgPool1d, nn.AdaptiveAvgPool1d), [F.avg_pool1d, _aten.avg_pool1d.default]),
    ("2d", Pool, Average, (nn.AvgPool2d, nn.AdaptiveAvgPool2d), [F.avg_pool2d, _aten.avg_pool2d.default]),
    ("3d", Pool3d, Average3d, (nn.AvgPool3d, nn.AdaptiveAvgPool3d), [F.avg_pool3d, _aten.avg_pool3d.default]),
)
_adaptive: dict[str, list[Any]] = {
    "1d": [F.adaptive_avg_pool1d, _aten.adaptive_avg_pool1d.default],
    "2d": [F.adaptive_avg_pool2d, _aten.adaptive_avg_pool2d.default, _aten._adaptive_avg_pool2d.default],
    "3d": [F.adaptive_avg_pool3d, _aten.adaptive_avg_pool3d.default, _aten._adaptive_avg_pool3d.default],
}
for _axes, _pool, _average, (_module, _adaptive_module), _functions in _rows:
    register("avg_pool" + _axes, _pool, arguments=_POOL, modules=[_module], functions=_functions)
    register(
        "adaptive_avg_pool" + _axes,
        _average,
        arguments=("input", "output_size"),
        modules=[_adaptive_module],
        functions=_adaptive[_axes],
    )
register(
    "mean",
    Mean,
    arguments=("input", "dim", "keepdim", "dtype"),
    methods=["mean"],
    functions=[torch.mean, _aten.mean.dim],
)
