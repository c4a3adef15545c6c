"""What a tensor is, without its values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Kind(NamedTuple):
    """What a tensor is, without its values.

    Attributes:
        shape: its size along each axis.
        stride: how it lies in memory.
        dtype: its dtype.
        device: where it is.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: Tensor) -> Kind:
        """Return the kind of a tensor."""
        return Kind(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this shape and dtype where, and as, the original's lay; itself if it lies so."""
        tensor = tensor.detach()
        if tensor.device == self.device and tensor.stride() == self.stride:
            return tensor
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device).copy_(tensor)
