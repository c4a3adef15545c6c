"""Calls that give what they are given: identity, dropout, copies, and casts to the same dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.modules.guards import AssumedRank, require_rank
from tests.operators.calls import Function, Method, Single
from tests.operators.sample import BATCH, IMAGE, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
_Call = tuple[nn.Module, Any, "Tensor"]


def calls() -> Iterator[Sample]:
    for model, target, x in (*_guards(), *_dropouts()):
        yield Sample(model.eval(), target, x, "Carrier")
    yield from _copies(randn(*IMAGE))
    yield from _casts()


def _guards() -> Iterator[_Call]:
    image, batch = randn(2, 4, 3, 3), randn(2, 4)
    yield Single(nn.Identity()), nn.Identity, batch
    yield Single(AssumedRank(4, "bn")), AssumedRank, image
    yield Function(require_rank, 4, "bn"), require_rank, image


def _dropouts() -> Iterator[_Call]:
    image, batch = randn(2, 4, 3, 3), randn(2, 4)
    for cls, x in (
        (nn.Dropout, batch),
        (nn.Dropout1d, randn(2, 4, 3)),
        (nn.Dropout2d, image),
        (nn.Dropout3d, randn(2, 4, 3, 3, 2)),
        (nn.AlphaDropout, batch),
        (nn.FeatureAlphaDropout, image),
    ):
        yield Single(cls(0.4)), cls, x
    for function, x in (
        (F.dropout, batch),
        (F.dropout1d, randn(2, 4, 3)),
        (F.dropout2d, image),
        (F.dropout3d, randn(2, 4, 3, 3, 2)),
        (F.alpha_dropout, batch),
        (F.feature_alpha_dropout, image),
    ):
        yield Function(function, 0.4, False), function, x
        yield Function(function, p=0.4, training=False, by_keyword="input"), function, x
    # These two are idle by default, unlike F.dropout.
    yield Function(F.alpha_dropout), F.alpha_dropout, batch
    yield Function(F.feature_alpha_dropout, 0.3), F.feature_alpha_dropout, image
    yield Function(torch.dropout, 0.4, False), torch.dropout, batch
    yield Function(torch.dropout, p=0.4, train=False), torch.dropout, batch
    for copy in (torch.clone, aten.clone.default):
        yield Function(copy), copy, image
    for overload in (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout):
        yield Function(overload.default, 0.4, False), overload.default, image


def _copies(x: Tensor) -> Iterator[Sample]:
    contiguous = aten.contiguous.default
    for call in (
        *(Method("contiguous"), Method("contiguous", memory_format=torch.channels_last)),
        *(Function(contiguous), Function(contiguous, memory_format=torch.channels_last)),
        *(Method("clone"), Method("clone", memory_format=torch.contiguous_format), Function(aten.alias.default)),
    ):
        yield carrier(call, x)


def _casts() -> Iterator[Sample]:
    """To the dtype that the value has; powers of two, so that no dtype rounds anything."""
    x, single, exact = randn(*BATCH), randn(*BATCH).float(), along(1, exact=True)
    options: dict[str, Any] = {"dtype": torch.float32}
    for call, value in (
        *((Method("to", torch.float32), single), (Method("to", "cpu"), x), (Method("to", randn(2)), x)),
        *((Method("to", dtype=torch.float64, copy=True), x), (Method("double"), x), (Method("float"), single)),
        *((Method("half"), single.half()), (Method("bfloat16"), single.bfloat16()), (Method("type_as", randn(2)), x)),
        *((Function(aten.to.dtype, torch.float32), single), (Function(aten.to.dtype, torch.float64, False, True), x)),
        *((Function(aten.to.device, torch.device("cpu"), torch.float64), x), (Function(aten.to.other, randn(2)), x)),
        *((Function(aten.to.dtype_layout, **options), single), (Function(aten._to_copy.default, **options), single)),
        (Function(aten.type_as.default, randn(2)), x),
    ):
        yield carrier(call, value, exact, exact)
