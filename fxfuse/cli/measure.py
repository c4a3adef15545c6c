"""What the benchmark measures: times in turn, and kernels that really run."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MIN_ROUNDS = 3
MAX_ROUNDS = 100


def time_in_turn(
    variants: Mapping[str, Callable[[], object]],
    repeats: int | None,
    seconds: float = 0,
    tick: Callable[[float], object] = lambda _: None,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of every variant in every round.

    The variants take turns, so that what slows the machine down for a while slows all of them down, and each
    round starts with another one, so that none always runs after the same neighbour.

    Args:
        variants: what to run; each is run once to warm up.
        repeats: how many rounds; None for as many as ``seconds`` allow, from MIN_ROUNDS to MAX_ROUNDS.
        seconds: the time to spend.
        tick: told after each round by what fraction the work went on.
        before: called before each run, which takes no part of its time.
    """
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    begin, rounds, told = time.perf_counter(), 0, 0.0
    while told < 1:
        for name in order:
            before()
            start = time.perf_counter()
            variants[name]()
            times[name].append(1000 * (time.perf_counter() - start))
        order.append(order.pop(0))
        rounds += 1
        done = rounds / repeats if repeats else _part_done(rounds, (time.perf_counter() - begin) / seconds)
        tick(done - told)
        told = done
    return times


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how many times as long as the second the first took: the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def finish(model: Callable[[Tensor], object], sample: Tensor) -> None:
    """Run a model to its end: a GPU has only been told what to do when a call returns."""
    model(sample)
    if sample.device.type != "cpu":
        torch.accelerator.synchronize(sample.device)


def count_kernels(run: Callable[[Tensor], object], sample: Tensor) -> Counter[str]:
    """Count the operations of ATen that really run, by name, in whatever form the model has them.

    Example:
        >>> count_kernels(torch.nn.ReLU(), torch.zeros(3))
        Counter({'relu': 1})

    Args:
        run: a model, or what else can be called with a tensor.
        sample: the tensor.
    """
    counter = _Counter()
    with torch.no_grad(), counter:
        run(sample)
    return counter.names


def count_norms(model: nn.Module, sample: Tensor) -> int:
    """How many batch-norm kernels really run, in whatever form the model has them."""
    return sum(count for name, count in count_kernels(model, sample).items() if "batch_norm" in name)


# What only looks at memory in another way, and is no work.
_VIEWS = frozenset(
    "view _unsafe_view reshape permute transpose t expand slice select unsqueeze squeeze detach alias split "
    "split_with_sizes chunk unbind as_strided _to_copy clone contiguous _reshape_alias unfold".split()
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
        names = {name: count for name, count in count_kernels(run, x).items() if name not in _VIEWS}
        convolutions, norms = (sum(n for k, n in names.items() if word in k) for word in ("convolution", "batch_norm"))
        return Kernels(convolutions, norms, sum(names.values()))

    def __str__(self) -> str:
        return f"{self.convolutions} / {self.norms} / {self.total}"


def _part_done(rounds: int, time_spent: float) -> float:
    """What part is done, where the clock decides when to stop between MIN_ROUNDS and MAX_ROUNDS."""
    return min(1.0, max(min(time_spent, rounds / MIN_ROUNDS), rounds / MAX_ROUNDS))


class _Counter(TorchDispatchMode):
    """Counts the calls that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the kernel, and count it."""
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))
