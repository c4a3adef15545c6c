"""Norms for which torch has kernels on GPUs alone, with a kernel for the CPU, so that every row runs anywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CPU = torch.library.Library("aten", "IMPL")


def _batch_norm(x: Tensor, *constants: Any) -> tuple[Tensor, ...]:
    """The result, and the statistics of the batch, which only training uses."""
    found: tuple[Tensor, ...] = torch.native_batch_norm(x, *constants)
    return found


def _with_reserve(x: Tensor, *constants: Any) -> tuple[Tensor, ...]:
    return (*_batch_norm(x, *constants), x.new_empty(0, dtype=torch.uint8))


_CPU.impl("cudnn_batch_norm", _with_reserve, "CPU")
_CPU.impl("miopen_batch_norm", _batch_norm, "CPU")

CUDNN, MIOPEN = torch.ops.aten.cudnn_batch_norm.default, torch.ops.aten.miopen_batch_norm.default
GPU_NORMS = (torch.cudnn_batch_norm, CUDNN, torch.miopen_batch_norm, MIOPEN)
