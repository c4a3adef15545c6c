"""Seconds that a pass takes, capture included: `fx_fuse` against `torch.fx.experimental.optimization.fuse`.

The two take turns on the same model in one process; the ratio is the median of the ratios within each turn. Both are
run once before: what they import and remember for later calls is no part of a time. The first call is a column of its
own, since that is what a user waits for.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import functools
import gc
import statistics
import sys
import time
from dataclasses import dataclass

import common
from torch import nn
from torch.fx.experimental import optimization
from tqdm import tqdm

from fxfuse import fx_fuse, models
from fxfuse.measure import time_in_turn


@dataclass(frozen=True)
class Row:
    """Times of one model, in seconds; no ratio where the pass of torch.fx fails.

    Attributes:
        model: its name.
        first: the first call of fx_fuse on this model in this process.
        seconds: of fx_fuse, median.
        torch_fx: of torch.fx's pass, median.
        ratio: seconds / torch_fx, median over the turns.
        turns: how many there were.
    """

    model: str
    first: float
    seconds: float
    torch_fx: float | None
    ratio: float | None
    turns: int


def measure(name: str, turns: int) -> Row:
    """Time both passes on one model."""
    model = models.build(name, models.find(name))
    models.randomize(model)
    gc.collect()
    start = time.perf_counter()
    fx_fuse(model)
    first = time.perf_counter() - start
    runs = {"fx_fuse": functools.partial(fx_fuse, model)}
    if _torch_fx_works(model):
        runs["torch.fx"] = functools.partial(optimization.fuse, model)
    times = time_in_turn(runs, turns, 0, lambda _: None)
    own, other = times["fx_fuse"], times.get("torch.fx")
    ratio = statistics.median(a / b for a, b in zip(own, other, strict=True)) if other else None
    median = statistics.median(other) / 1000 if other else None
    return Row(name, first, statistics.median(own) / 1000, median, ratio, turns)


def _torch_fx_works(model: nn.Module) -> bool:
    try:
        optimization.fuse(model)
    except Exception:  # noqa: BLE001 - it fails in any way on what it cannot trace
        return False
    return True


def _cells(row: Row) -> list[str]:
    values = (row.first, row.seconds, row.torch_fx, row.ratio)
    return [row.model, *("-" if value is None else f"{value:.3f}" for value in values)]


def main() -> None:
    """Measure model by model, and print the median of all ratios."""
    parser = common.parser(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="how often each pass is timed")
    options = common.parse(parser)
    fx_fuse(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval())  # imports are no part of a pass
    names = options.models or common.classifiers()
    rows = [measure(name, options.turns) for name in tqdm(names, file=sys.stderr)]
    common.show([_cells(row) for row in rows], ["model", "first s", "fx_fuse s", "torch.fx s", "ratio"])
    ratios = [row.ratio for row in rows if row.ratio is not None]
    median = statistics.median(ratios) if ratios else None
    if median is not None:
        print(f"\nmedian of {len(ratios)} ratios: {median:.3f}, largest: {max(ratios):.3f}")
    common.write(options.json, rows, median=median)


if __name__ == "__main__":
    main()
