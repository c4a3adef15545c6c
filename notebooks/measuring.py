"""What the notebooks measure with: norms like trained ones, times taken in turn, and kernels that really run."""

from __future__ import annotations

import copy
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Give every batch norm numbers that are far from the identity, in place; a tenth of the scales is negative."""
    draw = torch.Generator().manual_seed(seed)
    for norm in _norms(model).values():
        with torch.no_grad():
            norm.running_mean.copy_(0.3 * torch.randn(norm.running_mean.shape, generator=draw))
            norm.running_var.copy_(0.5 + 1.5 * torch.rand(norm.running_var.shape, generator=draw))
            sign = 1 - 2 * (torch.rand(norm.weight.shape, generator=draw) < 0.1).float()
            norm.weight.copy_(sign * (0.6 + 0.8 * torch.rand(norm.weight.shape, generator=draw)))
            norm.bias.copy_(0.3 * torch.randn(norm.bias.shape, generator=draw))


def without_norms(model: nn.Module) -> nn.Module:
    """Return a copy of the model without its batch norms: it computes something else."""
    bare = copy.deepcopy(model)
    for path in _norms(bare):
        parent, _, name = path.rpartition(".")
        setattr(bare.get_submodule(parent), name, nn.Identity())
    return bare


def time_in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of every run in every round; what slows the machine down slows all of them down."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - start))
    return times


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
        names = {name: count for name, count in count_kernels(run, x).items() if name not in _VIEWS}
        convolutions, norms = (sum(n for k, n in names.items() if word in k) for word in ("convolution", "batch_norm"))
        return Kernels(convolutions, norms, sum(names.values()))

    def __str__(self) -> str:
        return f"{self.convolutions} / {self.norms} / {self.total}"


# What only looks at memory in another way, and is no work.
_VIEWS = frozenset(
    "view _unsafe_view reshape permute transpose t expand slice select unsqueeze squeeze detach alias split "
    "split_with_sizes chunk unbind as_strided _to_copy clone contiguous _reshape_alias unfold".split()
)


def count_kernels(run: Callable[[Tensor], object], x: Tensor) -> Counter[str]:
    """Count the operations of ATen that really run, by name."""
    counter = _Counter()
    with torch.no_grad(), counter:
        run(x)
    return counter.names


class _Counter(TorchDispatchMode):
    """Counts the calls that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _norms(model: nn.Module) -> dict[str, Any]:
    return {path: module for path, module in model.named_modules() if hasattr(module, "running_mean")}
