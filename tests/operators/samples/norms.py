"""Calls of norms with running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import FirstItem, Function, Single
from tests.operators.gpu_norms import GPU_NORMS
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# What the decompositions make of norms that use the statistics of the batch: rows that only refuse.
NEVER_FOLDED = {
    torch.ops.aten._native_batch_norm_legit_functional.default,
    torch.ops.aten._native_batch_norm_legit.no_stats,
}
_Call = tuple[nn.Module, Any, "Tensor"]


def calls() -> Iterator[_Call]:
    """A module that makes one call, the target of the call, and an input."""
    yield from _norm_modules()
    yield from _norm_functions()


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
