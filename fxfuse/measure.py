"""What the benchmark measures: times in turn, and kernels that really run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIN_ROUNDS = 3
MAX_ROUNDS = 100


def time_in_turn(
    variants: Mapping[str, Callable[[], object]],
    repeats: int | None,
    seconds: float,
    tick: Callable[[float], object],
) -> dict[str, list[float]]:
    """Milliseconds of every variant in every round.

    The variants take turns, so that what slows the machine down for a while slows all of them down, and each
    round starts with another one, so that none always runs after the same neighbour.

    Args:
        variants: what to run; each is run once to warm up.
        repeats: how many rounds; None for as many as ``seconds`` allow, from MIN_ROUNDS to MAX_ROUNDS.
        seconds: the time to spend.
        tick: told after each round by what fraction the work went on.
    """
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    begin, rounds, told = time.perf_counter(), 0, 0.0
    while told < 1:
        for name in order:
            start = time.perf_counter()
            variants[name]()
            times[name].append(1000 * (time.perf_counter() - start))
        order.append(order.pop(0))
        rounds += 1
        done = rounds / repeats if repeats else _part_done(rounds, (time.perf_counter() - begin) / seconds)
        tick(done - told)
        told = done
    return times


def count_norms(model: nn.Module, sample: Tensor) -> int:
    """How many batch-norm kernels really run, in whatever form the model has them."""
    counter = _NormCounter()  # type: ignore[no-untyped-call]
    with torch.no_grad(), counter:
        model(sample)
    return counter.count


def _part_done(rounds: int, time_spent: float) -> float:
    """What part is done, where the clock decides when to stop between MIN_ROUNDS and MAX_ROUNDS."""
    return min(1.0, max(min(time_spent, rounds / MIN_ROUNDS), rounds / MAX_ROUNDS))


class _NormCounter(TorchDispatchMode):
    """Counts the calls that reach a batch-norm kernel."""

    count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the kernel, and count it if it is a batch norm."""
        self.count += "batch_norm" in func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))
