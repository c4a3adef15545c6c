"""A lowered model gives what the fused one gives, and leaves the input in the same state."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.lowering.lower import lowered
from fxfuse.modules.axis_order import order_of
from fxfuse.report.errors import FuseError
from tests.support.helpers import leaves
from tests.support.reference_emitter import ReferenceEmitter

if TYPE_CHECKING:
    from torch import nn


class Unlike(Exception):  # noqa: N818 - a finding
    """What a lowered model gives, and the fused one does not."""


def assert_lowered(fused: nn.Module, x: Tensor) -> bool:
    """Lower a fused model in its own dtype in plain torch, and in float32 to kernels; say whether it could be."""
    if any(module.training for module in fused.modules()):
        return False
    if not isinstance(fused, fx.GraphModule):
        return _assert_parts_lowered(fused, x)
    if x.dtype == torch.float64:
        _compare(fused, lowered(fused, None, exact_nan=False, emitter=ReferenceEmitter()), x, 1e-9)
    single = copy.deepcopy(fused).float()
    _compare(single, lowered(single, None, exact_nan=False), x.float(), 5e-3)
    return True


def _assert_parts_lowered(fused: nn.Module, x: Tensor) -> bool:
    """Lower a model that keeps its class, unless its parts are too small."""
    single = copy.deepcopy(fused).float()
    try:
        fast = lowered(single, None, exact_nan=False)
    except FuseError as error:
        if "layers or more" not in str(error):
            raise
        return False
    _compare(single, fast, x.float(), 5e-3)
    return True


def _compare(fused: nn.Module, fast: nn.Module, x: Tensor, tolerance: float) -> None:
    for value in (
        x,
        x,
        torch.cat([x, x.cos()]),
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    ):
        try:
            expected = outcome(fused, value)
            moved = outcome(fused, value * (1 + torch.finfo(value.dtype).eps * 4))
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue
        found = outcome(fast, value)
        if len(expected) != len(found):
            raise Unlike(f"{len(expected)} results, and then {len(found)}")
        for one, other, near in zip(expected, found, moved, strict=True):
            if isinstance(one, Tensor):
                _same(one, other, near, tolerance)


def outcome(model: nn.Module, x: Tensor) -> list[Any]:
    """What a model gives, and what it leaves in its input."""
    torch.manual_seed(0)
    given = x.clone(memory_format=torch.preserve_format)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [*leaves(model.forward(given)), given]


def _same(one: Tensor, other: Any, near: Tensor, tolerance: float) -> None:
    if one.shape != other.shape or one.dtype != other.dtype or order_of(one) != order_of(other):
        raise Unlike(f"{one.shape}, {one.dtype}, {one.stride()}: {other.shape}, {other.dtype}, {other.stride()}")
    if not one.is_floating_point() or not one.numel() or not one.isfinite().all() or not near.isfinite().all():
        return
    largest = max(float(one.abs().max()), 1e-6)
    if float((one - other).abs().max()) > max(tolerance * largest, 100 * float((one - near).abs().max())):
        raise Unlike(f"by {float((one - other).abs().max()) / largest:.1e}")
