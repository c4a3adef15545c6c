"""Seconds and memory of a pass, capture included: `fx_fuse` against `torch.fx.experimental.optimization.fuse`.

The two take turns on the same model in one process, and what one leaves behind is collected before the other starts;
the ratio is the median of the ratios within each turn. Both are run once before: what they import and remember for
later calls is no part of a time. The first call is a column of its own, since that is what a user waits for. `norms`
counts the batch norms that each of them folds. Memory is the peak of what a pass allocates (see `pass_memory.py`), in
megabytes. Without names it runs over torchvision's classifiers, twenty models of timm, chains of 100, 1,000 and
10,000 blocks, and a model of 2 GB.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import functools
import gc
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import common
import pass_models
from pass_memory import counted
from torch import fx, nn
from torch.fx.experimental import optimization
from torch.nn import functional
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.cli.measure import ratio, time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable


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
        norms: how many batch norms fx_fuse folds.
        torch_fx_norms: how many torch.fx's pass folds.
        peak: bytes that fx_fuse allocates at most.
        torch_fx_peak: the same of torch.fx's pass.
    """

    model: str
    first: float
    seconds: float
    torch_fx: float | None
    ratio: float | None
    turns: int
    norms: int
    torch_fx_norms: int | None
    peak: int
    torch_fx_peak: int | None


def measure(name: str, turns: int) -> Row:
    """Time both passes on one model."""
    model = models.build(name, models.find(name))
    models.randomize(model)
    gc.collect()
    start = time.perf_counter()
    fx_fuse(model)
    first = time.perf_counter() - start
    counter, fused = counted(fx_fuse, model)
    peak, norms, before = counter.peak, _batch_norms(fused), _batch_norms(model)
    del fused
    other_peak, other_norms = _torch_fx(model)
    runs: dict[str, Callable[[], object]] = {"fx_fuse": functools.partial(fx_fuse, model)}
    if other_peak is not None:
        runs["torch.fx"] = functools.partial(optimization.fuse, model)
    # Graphs are garbage in circles, which would gather until memory is full.
    times = time_in_turn(runs, turns, before=gc.collect)
    own, other = times["fx_fuse"], times.get("torch.fx")
    part = ratio(own, other) if other else None
    median = statistics.median(other) / 1000 if other else None
    folded = None if other_norms is None else before - other_norms
    seconds = statistics.median(own) / 1000
    return Row(name, first, seconds, median, part, turns, before - norms, folded, peak, other_peak)


def _torch_fx(model: nn.Module) -> tuple[int | None, int | None]:
    """The bytes and the norms that are left of torch.fx's pass, None where it fails."""
    try:
        counter, fused = counted(optimization.fuse, model)
    except Exception:  # noqa: BLE001 - it fails in any way on what it cannot trace
        return None, None
    return counter.peak, _batch_norms(fused)


def _batch_norms(model: nn.Module) -> int:
    """The batch norms of a model, also those that a graph has as functions."""
    modules = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    nodes = model.graph.nodes if isinstance(model, fx.GraphModule) else ()
    return modules + sum(node.target is functional.batch_norm for node in nodes)


def _cells(row: Row) -> list[str]:
    times = (row.first, row.seconds, row.torch_fx, row.ratio)
    norms = f"{row.norms} / {'-' if row.torch_fx_norms is None else row.torch_fx_norms}"
    peaks = (None if size is None else size / common.MEGABYTE for size in (row.peak, row.torch_fx_peak))
    name = row.model.partition(":")[2] if row.model in pass_models.OWN else row.model
    return [name, *(_number(t, 3) for t in times), norms, *(_number(size, 1) for size in peaks)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def plot(rows: list[Row], path: Path) -> None:
    """Draw the seconds of both passes against each other, and write the picture."""
    figure, axes = models.need("matplotlib.pyplot").subplots(figsize=(6, 5), layout="constrained")
    same = [r for r in rows if r.torch_fx is not None and r.norms == r.torch_fx_norms]
    more = [r for r in rows if r.torch_fx is not None and r.norms != r.torch_fx_norms]
    for label, group, marker in (("same norms folded", same, "o"), ("fx_fuse folds more", more, "^")):
        axes.scatter([r.torch_fx for r in group], [r.seconds for r in group], s=18, marker=marker, label=label)
    ends = [min(r.seconds for r in rows), max(r.seconds for r in rows)]
    for factor, style in ((1, "-"), (0.5, "--")):
        axes.plot(ends, [factor * end for end in ends], style, color="grey", label=f"{factor:g} x torch.fx")
    axes.set(xscale="log", yscale="log", xlabel="torch.fx, seconds", ylabel="fx_fuse, seconds")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure model by model, and print the median of all ratios."""
    parser = common.parser(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="how often each pass is timed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the seconds of both passes there")
    options = common.parse(parser)
    fx_fuse(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval())  # imports are no part of a pass
    everything = [*common.classifiers(math.inf), *(f"timm:{name}" for name in pass_models.TIMM), *pass_models.OWN]
    rows: list[Row] = []
    for name in tqdm(options.models or everything, file=sys.stderr):
        rows.append(measure(name, options.turns))
        gc.collect()
    headers = ["model", "first s", "fx_fuse s", "torch.fx s", "ratio", "norms", "peak MB", "torch.fx MB"]
    common.show([_cells(row) for row in rows], headers)
    ratios = [row.ratio for row in rows if row.ratio is not None]
    median = statistics.median(ratios) if ratios else None
    if median is not None:
        print(f"\nmedian of {len(ratios)} ratios: {median:.3f}, largest: {max(ratios):.3f}")
    common.write(options.json, rows, median=median)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
