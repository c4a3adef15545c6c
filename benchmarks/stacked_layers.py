"""Whether one layer for q, k and v pays: milliseconds of attention blocks, as they are and with `stack_parallel`.

Each model is a chain of blocks of attention with three linear layers of one value; both variants are timed in turn.
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
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fxfuse import Report, fx_fuse
from fxfuse.cli.measure import ratio, time_in_turn
from fxfuse.rules import DEFAULT_RULES

if TYPE_CHECKING:
    from argparse import Namespace

BLOCKS, HEAD = 4, 64
SIZES = ((192, 197), (384, 197), (768, 197), (768, 16))


@dataclass(frozen=True)
class Row:
    """One size: medians in milliseconds, and of the ratios within a turn."""

    channels: int
    tokens: int
    batch: int
    apart_ms: float
    stacked_ms: float
    apart_by_stacked: float
    turns: int


class Attention(nn.Module):
    """Attention of a value to itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))
        self.heads = channels // HEAD

    def forward(self, x: Tensor) -> Tensor:
        """Add what the value attends to."""
        batch, tokens, channels = x.shape
        shape = (batch, tokens, self.heads, HEAD)
        q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, channels)
        return x + self.out(y).relu()


def measure(channels: int, tokens: int, batch: int, options: Namespace) -> Row:
    """Time both variants of one size."""
    model = nn.Sequential(*(Attention(channels) for _ in range(BLOCKS))).eval()
    stacked = fx_fuse(model, rules=(*DEFAULT_RULES, "stack_parallel"))
    assert sum(d.rule == "stack_parallel" for d in Report.of(stacked).folded) == 2 * BLOCKS  # noqa: S101
    x = torch.randn(batch, tokens, channels)
    runs = {"apart": functools.partial(fx_fuse(model), x), "stacked": functools.partial(stacked, x)}
    with torch.inference_mode():
        times = time_in_turn(runs, options.turns, options.seconds)
    gain = ratio(times["apart"], times["stacked"])
    middle = (statistics.median(times["apart"]), statistics.median(times["stacked"]))
    return Row(channels, tokens, batch, *middle, gain, len(times["apart"]))


def _times(row: Row) -> tuple[str, str, str]:
    return f"{row.apart_ms:.1f}", f"{row.stacked_ms:.1f}", f"{row.apart_by_stacked:.3f}"


def main() -> None:
    """Measure size by size."""
    parser = common.parser(__doc__)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=10.0, help="for one row, unless --turns is given")
    parser.add_argument("--turns", type=int, help="how often each model is timed")
    options = common.parse(parser)
    jobs = [(*size, batch) for size in SIZES for batch in options.batch]
    rows = [measure(*job, options) for job in tqdm(jobs, file=sys.stderr)]
    cells = [[*map(str, (r.channels, r.tokens, r.batch)), *_times(r), str(r.turns)] for r in rows]
    common.show(cells, ["channels", "tokens", "batch", "apart ms", "stacked ms", "apart/stacked", "turns"])
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
