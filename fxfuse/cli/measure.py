"""What the benchmark measures: times in turn, and norms that really run."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fxfuse.modules.kernels import count_kernels

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


def count_norms(model: nn.Module, sample: Tensor) -> int:
    """How many batch-norm kernels really run, in whatever form the model has them."""
    return sum(count for name, count in count_kernels(model, sample).items() if "batch_norm" in name)


def _part_done(rounds: int, time_spent: float) -> float:
    """What part is done, where the clock decides when to stop between MIN_ROUNDS and MAX_ROUNDS."""
    return min(1.0, max(min(time_spent, rounds / MIN_ROUNDS), rounds / MAX_ROUNDS))
