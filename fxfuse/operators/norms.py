"""Normalisations that use stored statistics, and are therefore affine."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.algebra.affine import Affine, shaped
from fxfuse.algebra.running_norms import CONSTANTS, Norm
from fxfuse.graph.call import refusal_of
from fxfuse.graph.facts import Rank
from fxfuse.graph.registry import OPERATORS
from fxfuse.operators.norm_affines import channel_sizes, tail, without_tail
from fxfuse.operators.register import SAME, row
from fxfuse.operators.roles import AffineSource
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fxfuse.graph.plan import Write
    from fxfuse.graph.registry import Operator


class BatchNorm(AffineSource):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` along axis 1, with running statistics.

    Source of the formula: Ioffe and Szegedy, Batch Normalization, 2015, algorithm 2.
    """

    is_norm: ClassVar[bool] = True
    leaves_check: ClassVar[bool] = True

    def affine(self) -> Affine:
        """Return the affine, shaped for the rank of the input."""
        self._require_running_statistics()
        self.call.require_one_result()
        mean, variance, weight, bias = map(self._vector, CONSTANTS, self._constants)
        eps = self.call.get("eps", 1e-5)
        require(isinstance(eps, (int, float)), Reason.MALFORMED, name="eps", value=self.call.path, detail=repr(eps))
        norm = Norm(mean, variance, weight, bias, eps)
        scale, shift = self.call.graph.running_norms.scale_and_shift(norm)
        scale, shift = shaped(scale, shift, [-1, *[1] * (self._rank().axes - 2)])
        return Affine(scale, shift)

    def _vector(self, name: str, tensor: Any) -> Any:
        """Return a constant with one number for each channel; torch counts these, whatever their shape."""
        mean = self._constants[0]
        if tensor is None or (tensor.ndim == 1 and len(tensor) == mean.numel()):
            return tensor
        fit = not name.startswith("running") and tensor.numel() == mean.numel()
        detail = f"of shape {tuple(tensor.shape)}, beside running_mean of shape {tuple(mean.shape)}"
        require(fit, Reason.MALFORMED, name=name, value=self.call.path, detail=detail)
        return tensor.reshape(-1)

    def _require_running_statistics(self) -> None:
        # A module without running statistics uses the batch's own in evaluation mode too.
        passed = (self.call.get(name) for name in ("running_mean", "running_var"))
        require(all(statistic is not None for statistic in passed), Reason.BATCH_STATISTICS)
        require(not self._uses_batch_statistics(), Reason.TRAINING)

    def _uses_batch_statistics(self) -> bool:
        return bool(self.call.get("training"))

    def _rank(self) -> Rank:
        """Axis 1 is counted from the left, so the number of axes says which one it is from the right."""
        takes = self._takes()
        if len(takes) == 1:
            return Rank(takes[0])
        rank = self.call.rank(self.input)
        if rank is None:
            graph = self.call.graph
            if graph.view(self.input) is None:
                raise refusal_of(graph, self.input, Reason.NOT_LINEAR)
            raise Refusal(Reason.UNKNOWN_SHAPE, value=graph.describe(self.input), detail="not known")
        path, most = self.call.graph.path(self.input), max(takes, default=rank.axes)
        detail = f"it has {rank.axes} axes, and the norm takes {most}"
        require(not takes or rank.axes in takes, Reason.NOT_PER_CHANNEL, value=path, detail=detail)
        return rank

    def _takes(self) -> tuple[int, ...]:
        """Return the numbers of axes that the input may have; empty if there may be any number."""
        return self._row.takes

    @property
    def _row(self) -> Operator:
        """The row of the class; torch.export makes a function of a module, and still tells the class."""
        bases = getattr(self.call.graph.owner_class(self.node), "__mro__", ()) if self.call.module is None else ()
        rows = (OPERATORS[base] for base in bases if base in OPERATORS)
        return next((row for row in rows if row.view is type(self)), self.call.operator)

    def known_sizes(self) -> Mapping[int, int]:
        """Return the number of channels as well."""
        return channel_sizes(self, self._rank())

    @property
    def unproven_rank(self) -> Rank | None:
        """The number of axes of the input, if another input could have another one."""
        rank = self._rank()
        return rank if rank.assumed or rank.seen else None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The statistics and parameters."""
        return tuple(t for t in self._constants if t is not None)

    @functools.cached_property
    def _constants(self) -> tuple[Any, ...]:
        return tuple(map(self.call.tensor, CONSTANTS))


class InstanceNorm(BatchNorm):
    """The same formula in evaluation mode with running statistics; with those of the instance, its weight and bias.

    The module accepts inputs without a batch axis and takes the axis before the spatial ones either way, so the
    axis is known from its class; the function always takes axis 1.
    """

    gives_order: ClassVar[bool] = True

    def _takes(self) -> tuple[int, ...]:
        """Return the number of axes with a batch axis, which the class tells."""
        spatial = self._row.spatial
        return () if spatial is None else (spatial + 2,)

    def affine(self) -> Affine:
        """Return the affine, or what follows the bare normalisation."""
        trailing = [1] * (self._rank().axes - 2)
        return tail(self.call).rearrange(lambda t: t.reshape(-1, *trailing)) if self._has_tail else super().affine()

    @property
    def _has_tail(self) -> bool:
        passed = {name: self.call.get(name) is not None for name in CONSTANTS}
        return (passed["weight"] or passed["bias"]) and not (passed["running_mean"] or passed["running_var"])

    def without_affine(self) -> Write | None:
        """Take the weight and bias away, where the statistics are those of the instance."""
        return without_tail(self.call) if self._has_tail else None

    def _uses_batch_statistics(self) -> bool:
        # The module's rule: use_input_stats = self.training or not self.track_running_stats
        default = self.call.module is None or not self.call.get("track_running_stats")
        return bool(self.call.get("use_input_stats", default))


_aten = torch.ops.aten
_OF_MODULES = "input running_mean running_var weight bias training momentum eps"
_OF_ATEN = "input weight bias running_mean running_var training momentum eps"
_INSTANCE = "input running_mean running_var weight bias use_input_stats momentum eps training track_running_stats"
# fmt: off
row("batch_norm", BatchNorm, _OF_MODULES, nn.BatchNorm1d, takes=(2, 3), **SAME)
row("batch_norm", BatchNorm, _OF_MODULES, nn.BatchNorm2d, takes=(4,), **SAME)
row("batch_norm", BatchNorm, _OF_MODULES, nn.BatchNorm3d, takes=(5,), **SAME)
row("batch_norm", BatchNorm, _OF_MODULES, nn.SyncBatchNorm, F.batch_norm, **SAME)
row("batch_norm", BatchNorm, _OF_ATEN + " cudnn_enabled", torch.batch_norm, _aten.batch_norm.default, **SAME)
row("batch_norm", BatchNorm, _OF_ATEN,
    torch.native_batch_norm, _aten.native_batch_norm.default,
    _aten._native_batch_norm_legit_functional.default,  # in training mode
    torch.miopen_batch_norm, _aten.miopen_batch_norm.default, tuples=True, **SAME)
# What a trace down to ATen finds on a GPU, as miopen's; their names for momentum and eps are others.
row("batch_norm", BatchNorm, _OF_ATEN,
    torch.cudnn_batch_norm, _aten.cudnn_batch_norm.default, tuples=True, asks="dense strides", **SAME)
row("batch_norm", BatchNorm, "input weight bias running_mean running_var momentum eps",
    _aten._native_batch_norm_legit_no_training.default, _aten._batch_norm_no_update.default, tuples=True, **SAME)
row("batch_norm", BatchNorm, "input weight bias training momentum eps",  # by the statistics of the batch
    _aten._native_batch_norm_legit.no_stats, tuples=True, **SAME)
row("instance_norm", InstanceNorm, "input weight bias running_mean running_var use_input_stats momentum eps",
    torch.instance_norm, _aten.instance_norm.default, **SAME)
row("instance_norm", InstanceNorm, _INSTANCE, F.instance_norm, **SAME)
row("instance_norm", InstanceNorm, _INSTANCE, nn.InstanceNorm1d, spatial=1, **SAME)
row("instance_norm", InstanceNorm, _INSTANCE, nn.InstanceNorm2d, spatial=2, **SAME)
row("instance_norm", InstanceNorm, _INSTANCE, nn.InstanceNorm3d, spatial=3, **SAME)
