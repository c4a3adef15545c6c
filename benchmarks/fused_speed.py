"""Milliseconds of a fused model in eager mode, against the same model with its norms removed outright.

The second computes something else; merges and lowering can be faster still. `fxfuse bench` shows both as speed-ups over
the model before; here they are compared with each other, within each turn.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import functools
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import common
import torch
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.cli.measure import ratio, time_in_turn

if TYPE_CHECKING:
    from argparse import Namespace


@dataclass(frozen=True)
class Row:
    """Medians over the turns: milliseconds, and ratios within a turn."""

    model: str
    batch: int
    before_ms: float
    fused_ms: float
    norms_removed_ms: float
    fused_by_norms_removed: float
    before_by_fused: float
    turns: int


def measure(name: str, batch: int, options: Namespace) -> Row:
    """Time the model before, fused, and without norms, in turn."""
    before = models.build(name, models.find(name))
    models.randomize(before)
    sample = torch.randn(batch, *models.input_size(before))
    variants = {"before": before, "fused": fx_fuse(before), "norms removed": models.without_norms(before)}
    runs = {key: functools.partial(model, sample) for key, model in variants.items()}
    with torch.inference_mode():
        times = time_in_turn(runs, options.turns, options.seconds)
    return Row(
        model=name,
        batch=batch,
        before_ms=statistics.median(times["before"]),
        fused_ms=statistics.median(times["fused"]),
        norms_removed_ms=statistics.median(times["norms removed"]),
        fused_by_norms_removed=ratio(times["fused"], times["norms removed"]),
        before_by_fused=ratio(times["before"], times["fused"]),
        turns=len(times["before"]),
    )


def _cells(row: Row) -> list[str]:
    times = (row.before_ms, row.fused_ms, row.norms_removed_ms)
    ratios = (row.fused_by_norms_removed, row.before_by_fused)
    return [row.model, str(row.batch), *(f"{t:.1f}" for t in times), *(f"{r:.3f}" for r in ratios), str(row.turns)]


def main() -> None:
    """Measure model by model."""
    parser = common.parser(__doc__)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=30.0, help="for one row, unless --turns is given")
    parser.add_argument("--turns", type=int, help="how often each model is timed")
    options = common.parse(parser)
    jobs = [(name, batch) for name in options.models or ["resnet50"] for batch in options.batch]
    rows = [measure(name, batch, options) for name, batch in tqdm(jobs, file=sys.stderr)]
    headers = [
        "model",
        "batch",
        "before ms",
        "fused ms",
        "norms removed ms",
        "fused/norms removed",
        "before/fused",
        "turns",
    ]
    common.show([_cells(row) for row in rows], headers)
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
