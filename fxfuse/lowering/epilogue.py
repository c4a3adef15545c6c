"""A Triton kernel for what follows a convolution on a GPU: bias, sum and activation, in place, in one pass.

Imported on first use only, since Triton does not come with every build of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from fxfuse.lowering.activations import Activation

BLOCK = 1024
_CLAMPS = ("relu6", "hardtanh")
KNOWN = frozenset(["relu", "silu", "hardswish", "hardsigmoid", "sigmoid", "leaky_relu", "gelu", *_CLAMPS])
"""The activations that the kernel computes; of GELU the exact one."""


@triton.jit  # type: ignore[untyped-decorator]
def _finish(  # type: ignore[no-untyped-def] # noqa: ANN202, PLR0912, PLR0913, C901 - one kernel, compiled for one case
    y,  # noqa: ANN001
    bias,  # noqa: ANN001
    other,  # noqa: ANN001
    count,  # noqa: ANN001
    channels,  # noqa: ANN001
    low,  # noqa: ANN001
    high,  # noqa: ANN001
    HAS_BIAS: tl.constexpr,  # noqa: N803
    HAS_OTHER: tl.constexpr,  # noqa: N803
    NAME: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    v = tl.load(y + at, mask=inside).to(tl.float32)
    if HAS_BIAS:
        v += tl.load(bias + at % channels, mask=inside).to(tl.float32)
    if HAS_OTHER:
        v += tl.load(other + at, mask=inside).to(tl.float32)
    # Comparisons, and no maxima: NaN stays NaN.
    if NAME == "relu":
        v = tl.where(v < 0, 0.0, v)
    if NAME == "clamp":
        v = tl.where(v < low, low, tl.where(v > high, high, v))
    if NAME == "leaky_relu":
        v = tl.where(v < 0, v * low, v)
    if NAME == "sigmoid":
        v = tl.sigmoid(v)
    if NAME == "silu":
        v = v * tl.sigmoid(v)
    if NAME == "gelu":
        v = 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))
    if NAME == "hardsigmoid" or NAME == "hardswish":  # noqa: PLR1714 - Triton knows no sets
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
        activation: one of ``KNOWN``.
    """
    name = "none" if activation is None else activation.name
    numbers: Any = (0.0, 0.0) if activation is None else (*activation.numbers, 0.0, 0.0)
    count = y.numel()
    _finish[(triton.cdiv(count, BLOCK),)](
        y,
        y if bias is None else bias,
        y if other is None else other,
        count,
        y.shape[1],
        float(numbers[0]),
        float(numbers[1]),
        HAS_BIAS=bias is not None,
        HAS_OTHER=other is not None,
        NAME="clamp" if name in _CLAMPS else name,
        SIZE=BLOCK,
    )
    return y
