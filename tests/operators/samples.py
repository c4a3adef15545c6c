"""A sample of every way in which the operations of the table can be called, awkward options included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.operators import OPERATORS
from tests.helpers import trained
from tests.operators import arithmetic, carriers, linears, moves, pieces, resizes, sums, tails
from tests.operators.calls import FirstItem, Function, Single
from tests.operators.gpu_norms import GPU_NORMS
from tests.operators.sample import Sample
from tests.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


# What the decompositions make of norms that use the statistics of the batch: rows that only refuse.
NEVER_FOLDED = {
    torch.ops.aten._native_batch_norm_legit_functional.default,
    torch.ops.aten._native_batch_norm_legit.no_stats,
}


# The targets of the rows that play a role; of the others, only facts are known.
WITH_ROLE = {target: row for target, row in OPERATORS.items() if row.plays}


def samples() -> list[Sample]:
    """All samples, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return list(_samples())


def _samples() -> Iterator[Sample]:
    for model, target, x in linears.calls():
        yield Sample(model, target, x, "Linear")
    for model, target, x in (*_norm_modules(), *_norm_functions(), *arithmetic.calls()):
        yield Sample(trained(model), target, x, "AffineSource")
    for model, target, x in _noops():
        yield Sample(model.eval(), target, x, "Carrier")
    for more in (carriers, resizes, moves, pieces, sums, tails):
        yield from more.calls()


_Call = tuple[nn.Module, Any, "Tensor"]


def _norm_modules() -> Iterator[_Call]:
    options: list[dict[str, Any]] = [{}, {"affine": False}, {"eps": 0.1}, {"momentum": None}]
    norms: list[tuple[type[nn.Module], tuple[int, ...]]] = [
        (nn.BatchNorm1d, (3, 4)),
        (nn.BatchNorm1d, (3, 4, 5)),
        (nn.BatchNorm2d, (3, 4, 5, 2)),
        (nn.BatchNorm3d, (3, 4, 5, 2, 2)),
        (nn.SyncBatchNorm, (3, 4, 5, 2)),
        (nn.SyncBatchNorm, (3, 4)),
        (nn.InstanceNorm1d, (3, 4, 5)),
        (nn.InstanceNorm1d, (4, 5)),
        (nn.InstanceNorm2d, (3, 4, 5, 2)),
        (nn.InstanceNorm2d, (4, 5, 2)),
        (nn.InstanceNorm3d, (3, 4, 5, 2, 2)),
    ]
    for cls, shape in norms:
        for option in options:
            yield Single(cls(4, **{"affine": True, "track_running_stats": True, **option})), cls, randn(*shape)


def _norm_functions() -> Iterator[_Call]:
    x = randn(3, 4, 5)
    mean, variance = randn(4), randn(4, seed=1).abs() + 0.3
    weight, bias = parameter(4, seed=2), parameter(4, seed=3)
    statistics: dict[str, Any] = {"running_mean": mean, "running_var": variance}
    for call in (
        Function(F.batch_norm, mean, variance),
        Function(F.batch_norm, mean, variance, weight, bias, False, 0.1, 0.2),
        Function(F.batch_norm, mean, variance, weight),
        Function(F.batch_norm, bias=bias, eps=0.3, **statistics),
        Function(F.batch_norm, by_keyword="input", weight=weight, training=False, **statistics),
        Function(torch.batch_norm, weight, bias, mean, variance, False, 0.1, 0.2, False),
        Function(torch.batch_norm, None, None, mean, variance, False, 0.1, 1e-3, True),
        Function(F.instance_norm, mean, variance, weight, bias, False, 0.1, 0.2),
        Function(F.instance_norm, use_input_stats=False, weight=weight, **statistics),
    ):
        yield call, call.function, x
    yield from _overloads_of_norms()


def _overloads_of_norms() -> Iterator[_Call]:
    """What torch.export and its decompositions write for norms; most give tuples."""
    x, aten = randn(3, 4, 5), torch.ops.aten
    mean, variance = randn(4), randn(4, seed=1).abs() + 0.3
    constants: tuple[Any, ...]
    for constants in ((parameter(4, seed=2), parameter(4, seed=3), mean, variance), (None, None, mean, variance)):
        calls = (
            FirstItem(torch.native_batch_norm, *constants, False, 0.1, 0.2),
            FirstItem(aten.native_batch_norm.default, *constants, False, 0.1, 0.2),
            FirstItem(aten._native_batch_norm_legit_no_training.default, *constants, 0.1, 0.2),
            FirstItem(aten._batch_norm_no_update.default, *constants, 0.1, 0.2),
            *(FirstItem(norm, *constants, False, 0.1, 0.2) for norm in GPU_NORMS if constants[0] is not None),
            Function(aten.batch_norm.default, *constants, False, 0.1, 0.2, True),
            Function(torch.instance_norm, *constants, False, 0.1, 0.2, True),
            Function(aten.instance_norm.default, *constants, False, 0.1, 0.2, True),
        )
        yield from ((call, call.function, x) for call in calls)


def _noops() -> Iterator[_Call]:
    image, batch = randn(2, 4, 3, 3), randn(2, 4)
    yield Single(nn.Identity()), nn.Identity, batch
    yield Single(AssumedRank(4, "bn")), AssumedRank, image
    yield Function(require_rank, 4, "bn"), require_rank, image
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
    aten = torch.ops.aten
    for copy in (torch.clone, aten.clone.default):
        yield Function(copy), copy, image
    for overload in (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout):
        yield Function(overload.default, 0.4, False), overload.default, image
