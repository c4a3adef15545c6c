"""Operations that return the values of their input: identity, copies, dropout in evaluation mode, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.graph.ranks import recorded_dtype
from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.operators.passage import Passage
from fxfuse.operators.register import SAME, row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.registry import Axes, ShapeAndResult


class Noop(Passage):
    """A carrier that returns its input as it is, at least in some modes."""

    stays: ClassVar[bool] = False
    """Whether it must stay in a graph, although it changes no values."""

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
        return self.idle and not self.stays


class Identity(Noop):
    """``x -> x``.

    Example:
        >>> import torch
        >>> from fxfuse.extend import Identity, register
        >>> register("tap", Identity, arguments=["input"], methods=["tap"]).view.__name__
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
        >>> register("copy", Copy, arguments=["x"], functions=[copy.copy], replace=True).view.__name__
        'Copy'
    """

    stays = True

    @property
    def gives_order(self) -> bool:
        """Whether the result is contiguous, whatever the strides of the input."""
        asked = self.call.get("memory_format")
        return asked is torch.contiguous_format or (asked is None and self.call.operator.name == "contiguous")


class Cast(Noop):
    """``x.to(dtype)`` and the like, where the dtype is the same before and after; the device may be another one."""

    stays = True

    @property
    def idle(self) -> bool:
        """Whether nothing is rounded."""
        before, after = (recorded_dtype(value) for value in (self.input, self.node))
        return before is not None and before == after


class Guard(Noop):
    """A check of the number of axes; an affine passes, but the check stays."""

    stays = True


def _checked(arguments: Mapping[str, Any], axes: Axes) -> int | None:  # noqa: ARG001 - the call alone says it
    number = arguments.get("axes")
    return number if isinstance(number, int) and not arguments.get("or_more") else None


_aten = torch.ops.aten
_SELF: ShapeAndResult = {"shape": "same", "result": "view"}
# fmt: off
row("identity", Identity, "input", nn.Identity, **_SELF)
row("dropout", Dropout, "input p training inplace",
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, **_SELF)
row("dropout", AlphaDropout, "input p training inplace", F.alpha_dropout, F.feature_alpha_dropout, **_SELF)
row("dropout", Dropout, "input p train",
    torch.dropout, _aten.dropout.default, _aten.feature_dropout.default,
    _aten.alpha_dropout.default, _aten.feature_alpha_dropout.default, **_SELF)
row("contiguous", Copy, "input memory_format", "contiguous", _aten.contiguous.default,
    shape="same", result="maybe view", strides="fixed")
row("clone", Copy, "input memory_format", "clone", torch.clone, _aten.clone.default, **SAME)
row("alias", Copy, "input", _aten.alias.default, **_SELF)
row("to", Cast, "input dtype device non_blocking copy memory_format layout pin_memory other",
    "to", _aten.to.dtype, _aten.to.device, _aten.to.dtype_layout, _aten._to_copy.default,
    shape="same", result="maybe view")
row("to", Cast, "input", "float", "half", "double", "bfloat16", **_SELF)
row("to", Cast, "input other non_blocking copy memory_format", "type_as", _aten.type_as.default, _aten.to.other,
    shape="same", result="maybe view", like="other")
row("guard", Guard, "input axes where or_more", AssumedRank, require_rank, rank=_checked, asks="rank", **_SELF)
