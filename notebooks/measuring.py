"""What the notebooks measure with, which is what ``fxfuse bench`` measures with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fxfuse.cli.measure import time_in_turn
from fxfuse.cli.models import randomize, without_norms
from fxfuse.modules.kernels import VIEWS, Kernels, count_kernels

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kernels", "count_kernels", "randomize", "steps_of", "time_in_turn", "without_norms"]


class Step(NamedTuple):
    """An operation that runs, and the bytes of the values and weights that it reads and writes."""

    name: str
    read: int
    written: int


def steps_of(run: Callable[[Tensor], object], x: Tensor) -> list[Step]:
    """Return what runs; what only looks at memory in another way is left out.

    Args:
        run: a model.  Of a lowered one the kernels run as they do without anybody who looks.
        x: its input.
    """
    recorder = _Recorder()
    with torch.no_grad():
        run(x)
        run(x)  # a lowered model has packed its weights by now
        runner = getattr(run, "_runner", None)
        inner = run if runner is None else runner.current().forward
        with recorder:
            inner(x)
    return recorder.steps


class _Recorder(TorchDispatchMode):
    """Notes the calls that reach a kernel, with their bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name not in VIEWS:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]
            written = result if isinstance(result, Tensor) else result[0]
            self.steps += [Step(name.strip("_"), sum(map(_bytes, tensors)), _bytes(written))] if written.numel() else []
        return result


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
