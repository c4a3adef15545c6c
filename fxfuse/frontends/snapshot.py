"""Whether tensors are still what they were: the same objects, in the same memory, not written into."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Sequence

_steps = 0  # of all optimizers; fused ones write into parameters without counting it there


def _count_step(*_: Any) -> None:
    global _steps  # noqa: PLW0603 - torch's hook is global too
    _steps += 1


register_optimizer_step_post_hook(_count_step)


class Snapshot:
    """Some tensors at one time.

    Parameters count how often they are written into.  Norms in training mode move their running statistics without
    counting, so these and other buffers are compared by value.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Remember ``tensors``, without keeping them alive."""
        self.tensors = [weakref.ref(tensor) for tensor in tensors]
        self.marks = [_mark(tensor) for tensor in tensors]
        self.copies = [None if isinstance(tensor, nn.Parameter) else tensor.detach().clone() for tensor in tensors]
        self.steps = _steps

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, with the same values for all that can be seen."""
        if self.steps != _steps or not all(ref() is t for ref, t in zip(self.tensors, tensors, strict=True)):
            return False
        if self.marks != [_mark(tensor) for tensor in tensors]:
            return False
        return all(copy is None or _same(copy, t) for copy, t in zip(self.copies, tensors, strict=True))


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Return where a tensor is, and how often it was written into."""
    return tensor.data_ptr(), tensor._version


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
