"""What a model really runs, in whatever form it is: its kernels by name, and its floating-point operations."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fxfuse.modules.example_inputs import Inputs, untouched

if TYPE_CHECKING:
    from collections.abc import Callable


def count_kernels(run: Callable[[Tensor], object], sample: Tensor) -> Counter[str]:
    """Count the operations of ATen that really run, by name, in whatever form the model has them.

    Example:
        >>> count_kernels(torch.nn.ReLU(), torch.zeros(3))
        Counter({'relu': 1})

    Args:
        run: a model, or what else can be called with a tensor.
        sample: the tensor.
    """
    names: Counter[str] = Counter()
    with torch.no_grad(), _counting(names):
        run(sample)
    return names


# What only looks at memory in another way, and is no work.
VIEWS = frozenset(
    "view _unsafe_view reshape permute transpose t expand slice select unsqueeze squeeze detach alias split "
    "split_with_sizes chunk unbind as_strided _to_copy clone contiguous _reshape_alias unfold empty".split()
)


class Kernels(NamedTuple):
    """What a model runs: convolutions, batch norms, and all that is no view."""

    convolutions: int
    norms: int
    total: int

    @staticmethod
    def of(run: Callable[[Tensor], object], x: Tensor) -> Kernels:
        """Count them in a second run; some models keep what their first one computed."""
        with torch.no_grad():
            run(x)
        return Kernels.among(count_kernels(run, x))

    @staticmethod
    def among(counts: Counter[str]) -> Kernels:
        """Sum counts by name."""
        names = {name: count for name, count in counts.items() if name not in VIEWS}
        convolutions, norms = (sum(n for k, n in names.items() if word in k) for word in ("convolution", "batch_norm"))
        return Kernels(convolutions, norms, sum(names.values()))

    def __str__(self) -> str:
        return f"{self.convolutions} / {self.norms} / {self.total}"


def run_counted(model: nn.Module, inputs: Inputs) -> tuple[int, Kernels]:
    """Run a model once, and return its floating-point operations and its kernels."""
    flops, names = FlopCounterMode(display=False), Counter[str]()
    with untouched(model), flops, _counting(names):
        inputs.call(model)
    return flops.get_total_flops(), Kernels.among(names)


class EachKernel(TorchDispatchMode):
    """Tells of every call that reaches a kernel, and of what it returns."""

    def __init__(self, tell: Callable[[Any, Any], None]) -> None:
        """Tell a function of the overload of ATen that was called, and of its result."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.tell = tell

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the kernel, and tell of it."""
        result = func(*args, **(kwargs or {}))
        self.tell(func, result)
        return result


def _counting(names: Counter[str]) -> EachKernel:
    return EachKernel(lambda func, _result: names.update([func.overloadpacket.__name__]))
