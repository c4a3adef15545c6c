"""Operations that return the values of their input: identity, copies, dropout in evaluation mode, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.graph.ranks import recorded_dtype
from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.operators.passage import Passage
from fxfuse.operators.register import register

if TYPE_CHECKING:
    from fxfuse.algebra.affine import Affine


class Noop(Passage):
    """A carrier that returns its input as it is, at least in some modes."""

    @property
    def idle(self) -> bool:
        """Whether it returns its input as the call stands."""
        return True

    def passes(self, affine: Affine) -> None:  # noqa: ARG002 - whatever it is
        """Refuse all in other modes."""
        self.require(self.idle)

    @property
    def droppable(self) -> bool:
        """Whether it may be dropped from a graph."""
        return self.idle


class Identity(Noop):
    """``x -> x``.

    Example:
        >>> import torch
        >>> from fxfuse.extend import Identity, register
        >>> register("detach", Identity, arguments=["input"], methods=["detach"]).view.__name__
        'Identity'
    """


class Dropout(Noop):
    """``x -> x`` in evaluation mode."""

    trains_by_default = True

    @property
    def idle(self) -> bool:
        """Whether it is in evaluation mode."""
        default = self.call.module is None and self.trains_by_default
        return not self.call.get("training", self.call.get("train", default))


class AlphaDropout(Dropout):
    """Functions that do nothing unless they are told to train."""

    trains_by_default = False


class Copy(Noop):
    """``contiguous`` and ``clone``: the same values in memory of their own, on which later code may rely; it stays.

    Example:
        >>> import copy
        >>> from fxfuse.extend import Copy, register
        >>> register("copy", Copy, arguments=["x"], functions=[copy.copy]).view.__name__
        'Copy'
    """

    @property
    def gives_order(self) -> bool:
        """Whether the result lies in memory in the usual order, whatever the input does."""
        asked = self.call.get("memory_format")
        return asked is torch.contiguous_format or (asked is None and self.call.operator.name == "contiguous")

    @property
    def droppable(self) -> bool:
        """Never."""
        return False


class Cast(Noop):
    """``x.to(dtype)`` and the like, where the dtype is known to be the same before and after."""

    @property
    def idle(self) -> bool:
        """Whether nothing is rounded."""
        before, after = (recorded_dtype(value) for value in (self.input, self.node))
        return before is not None and before == after

    @property
    def droppable(self) -> bool:
        """Never: the result may be on another device, or in memory of its own."""
        return False


class Guard(Noop):
    """A check of the number of axes; an affine passes, but the check stays."""

    @property
    def droppable(self) -> bool:
        """Never: the check is there for a reason."""
        return False


register("identity", Identity, arguments=("input",), modules=[nn.Identity])
register(
    "dropout",
    Dropout,
    arguments=("input", "p", "training", "inplace"),
    modules=[nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout],
    functions=[F.dropout, F.dropout1d, F.dropout2d, F.dropout3d],
)
register(
    "dropout",
    AlphaDropout,
    arguments=("input", "p", "training", "inplace"),
    functions=[F.alpha_dropout, F.feature_alpha_dropout],
)
_aten = torch.ops.aten
register(
    "dropout",
    Dropout,
    arguments=("input", "p", "train"),
    functions=[
        *(torch.dropout, _aten.dropout.default, _aten.feature_dropout.default),
        *(_aten.alpha_dropout.default, _aten.feature_alpha_dropout.default),
    ],
)
register(
    "contiguous",
    Copy,
    arguments=("input", "memory_format"),
    methods=["contiguous"],
    functions=[_aten.contiguous.default],
)
register(
    "clone",
    Copy,
    arguments=("input", "memory_format"),
    methods=["clone"],
    functions=[torch.clone, _aten.clone.default, _aten.alias.default],
)
register(
    "to",
    Cast,
    arguments=("input", "dtype", "device", "non_blocking", "copy", "memory_format", "layout", "pin_memory", "other"),
    methods=["to", "float", "half", "double", "bfloat16", "type_as"],
    functions=[
        *(_aten.to.dtype, _aten.to.device, _aten.to.other, _aten.to.dtype_layout, _aten._to_copy.default),
        _aten.type_as.default,
    ],
)
register("guard", Guard, arguments=("input",), modules=[AssumedRank], functions=[require_rank])
