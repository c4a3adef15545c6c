"""A Triton kernel for what follows a convolution on a GPU: bias, sum and activation, in place, in one pass.

Imported on first use only, since Triton does not come with every build of torch.
"""

# ruff: noqa: ANN001, ANN202, C901, N803, PLR0913, PLR0917, PLR1714 - the language of Triton kernels

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from fxfuse.lowering.activations import Activation

triton: Any = importlib.import_module("triton")
tl: Any = importlib.import_module("triton.language")

SIZE = 1024
KNOWN = frozenset("relu relu6 hardtanh silu hardswish hardsigmoid sigmoid leaky_relu gelu".split())


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _finish(  # type: ignore[no-untyped-def]
    y, bias, other, count, channels, low, high, BIAS: tl.constexpr, OTHER: tl.constexpr, NAME: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    v = tl.load(y + at, mask=inside).to(tl.float32)
    if BIAS:
        v += tl.load(bias + at % channels, mask=inside).to(tl.float32)
    if OTHER:
        v += tl.load(other + at, mask=inside).to(tl.float32)
    # Comparisons, and no maxima: NaN stays NaN.
    if NAME == "relu":
        v = tl.where(v < 0, 0.0, v)
    if NAME == "relu6" or NAME == "hardtanh":
        v = tl.where(v < low, low, tl.where(v > high, high, v))
    if NAME == "leaky_relu":
        v = tl.where(v < 0, v * low, v)
    if NAME == "sigmoid":
        v = tl.sigmoid(v)
    if NAME == "silu":
        v = v * tl.sigmoid(v)
    if NAME == "gelu":
        v = 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))
    if NAME == "hardsigmoid" or NAME == "hardswish":
        h = v + 3.0
        h = tl.where(h < 0, 0.0, tl.where(h > 6.0, 6.0, h)) / 6.0
        v = v * h if NAME == "hardswish" else h
    tl.store(y + at, v.to(y.dtype.element_ty), mask=inside)


def finish(y: Tensor, bias: Tensor | None, other: Tensor | None, activation: Activation | None) -> Tensor:
    """Add the bias and another value to a convolution's result, and apply the activation, in place.

    Args:
        y: what the convolution gave, channels last.
        bias: one number for each channel.
        other: a value of the same shape and order in memory.
        activation: one of ``KNOWN``; of GELU the exact one.
    """
    name, numbers = ("none", ()) if activation is None else (activation.name, activation.numbers)
    low, high = (*numbers, 0.0, 0.0)[:2]
    switches: dict[str, Any] = {"BIAS": bias is not None, "OTHER": other is not None, "NAME": name, "BLOCK": SIZE}
    bias, other = y if bias is None else bias, y if other is None else other
    _finish[(triton.cdiv(y.numel(), SIZE),)](y, bias, other, y.numel(), y.shape[1], low, high, **switches)
    return y
