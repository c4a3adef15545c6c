"""Normalisations by the statistics of the value itself: only the weight and bias behind them are an affine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.algebra.affine import Affine
from fxfuse.graph.plan import Write
from fxfuse.operators.register import SAME, row
from fxfuse.operators.roles import AffineSource
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fxfuse.graph.call import Call
    from fxfuse.graph.facts import Rank


def tail(call: Call) -> Affine:
    """Return the weight and bias of a norm, as vectors."""
    weight, bias = call.tensor("weight"), call.tensor("bias")
    like = weight if weight is not None else bias
    # normalised * weight + bias
    scale = torch.ones_like(like, dtype=torch.float64) if weight is None else weight.detach().double()
    shift = torch.zeros_like(like, dtype=torch.float64) if bias is None else bias.detach().double()
    return Affine(scale, shift, bias is not None)


def without_tail(call: Call) -> Write:
    """Return the edit that takes the weight and bias away."""
    passed = {name: None for name in ("weight", "bias") if call.get(name) is not None}
    known = {} if call.module is None else vars(call.module)
    flags: dict[str, bool] = {name: False for name in ("elementwise_affine", "affine") if name in known}
    return Write(call, dict(passed), attributes=flags)


def channel_sizes(norm: AffineSource, rank: Rank) -> Mapping[int, int]:
    """Return the sizes that are known behind a norm along axis 1: its constants say how many channels there are."""
    known = rank.proven and bool(norm.tensors)
    return {**norm.sizes_before(), **({1 - rank.axes: len(norm.tensors[0])} if known else {})}


class NormTail(AffineSource):
    """``normalised(x) * weight + bias``, both of the shape of the trailing axes (layer norm, RMS norm)."""

    is_norm: ClassVar[bool] = True

    @property
    def may_move_downstream(self) -> bool:
        """Whether there is a weight or a bias."""
        return bool(self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The weight and the bias."""
        return tuple(t for t in (self.call.tensor("weight"), self.call.tensor("bias")) if t is not None)

    def affine(self) -> Affine:
        """Return the weight and bias."""
        return self._shaped(tail(self.call))

    def _shaped(self, affine: Affine) -> Affine:
        return affine

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sizes of the weight or the bias as well."""
        shape = self.tensors[0].shape if self.tensors else ()
        return {**self.sizes_before(), **{axis - len(shape): size for axis, size in enumerate(shape)}}

    def without_affine(self) -> Write:
        """Take the weight and bias away."""
        return without_tail(self.call)


class GroupNormTail(NormTail):
    """The same along axis 1, whatever follows."""

    def _shaped(self, affine: Affine) -> Affine:
        rank = self._rank()
        return affine.rearrange(lambda t: t.reshape(-1, *[1] * (rank.axes - 2)))

    def known_sizes(self) -> Mapping[int, int]:
        """Return the number of channels as well."""
        return channel_sizes(self, self._rank())

    def _rank(self) -> Rank:
        rank = self.call.rank(self.input)
        value = self.call.graph.describe(self.input)
        require(rank is not None, Reason.UNKNOWN_SHAPE, value=value, detail="not known")
        assert rank is not None  # noqa: S101 - as required
        return rank

    @property
    def unproven_rank(self) -> Rank | None:
        """The number of axes of the input, if another input could have another one."""
        rank = self._rank()
        return rank if rank.assumed or rank.seen else None


_aten = torch.ops.aten
# fmt: off
row("layer_norm", NormTail, "input normalized_shape weight bias eps",
    nn.LayerNorm, F.layer_norm, torch.layer_norm, _aten.layer_norm.default, **SAME)
row("layer_norm", NormTail, "input normalized_shape weight bias eps",
    torch.native_layer_norm, _aten.native_layer_norm.default, tuples=True, **SAME)
row("rms_norm", NormTail, "input normalized_shape weight eps",
    nn.RMSNorm, F.rms_norm, torch.rms_norm, _aten.rms_norm.default, **SAME)
row("group_norm", GroupNormTail, "input num_groups weight bias eps",
    nn.GroupNorm, F.group_norm, torch.group_norm, _aten.group_norm.default, **SAME)
row("group_norm", GroupNormTail, "input weight bias N C HxW num_groups eps",
    torch.native_group_norm, _aten.native_group_norm.default, tuples=True, **SAME)
