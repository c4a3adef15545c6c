"""Seconds that a pass takes on chains and on concatenations of growing length: they must grow with the length alone.

``chain`` is conv - norm - relu again and again. ``dense`` concatenates the result of norm - relu - conv to its input
again and again, so that every norm stands behind a concatenation, and stays. ``joined`` has one norm behind such a
chain of concatenations without norms, into all of whose convolutions it folds, and these become one. ``branches`` adds
the value to a convolution of it, before each activation, which becomes one convolution.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import common
import pass_models
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Row:
    """Seconds of one kind of graph, with ``length`` steps and with ``times`` as many."""

    kind: str
    length: int
    seconds: float
    longer: int
    seconds_longer: float
    ratio: float
    folded: int


class Dense(nn.Module):
    """Concatenates what each block makes of the value to the value."""

    def __init__(self, length: int, *, norms: bool) -> None:
        super().__init__()
        before = ([nn.BatchNorm2d(n), nn.ReLU()] if norms else [] for n in range(1, length + 1))
        blocks = (nn.Sequential(*layers, nn.Conv2d(n, 1, 1)) for n, layers in enumerate(before, start=1))
        self.first = nn.Conv2d(1, 1, 1)
        self.blocks = nn.ModuleList(blocks if norms else (nn.Conv2d(1, 1, 1) for _ in range(length)))
        self.last = nn.BatchNorm2d(length + 1)
        self.norms = norms

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate."""
        y: Tensor = self.first(x)
        for block in self.blocks:
            y = torch.cat([y, block(y if self.norms else x)], 1)
        result: Tensor = self.last(y)
        return result


class Branches(nn.Module):
    """Adds a convolution of the value to the value."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(length))

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        for block in self.blocks:
            x = (x + block(x)).relu()
        return x


def seconds(model: nn.Module, turns: int) -> float:
    """The median of some turns, without the collection of what came before."""
    times = []
    for _ in range(turns):
        gc.collect()
        start = time.perf_counter()
        fx_fuse(model)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure each kind at two lengths."""
    parser = common.parser(__doc__)
    parser.add_argument("--turns", type=int, default=3, help="how often each graph is fused")
    parser.add_argument("--times", type=int, default=10, help="how much longer the longer graph is")
    options = common.parse(parser)
    rows = []
    kinds: dict[str, tuple[Callable[[int], nn.Module], int]] = {
        "chain": (pass_models.chain, 1000),
        "dense": (lambda n: Dense(n, norms=True), 200),
        "joined": (lambda n: Dense(n, norms=False), 200),
        "branches": (Branches, 200),
    }
    for kind, (make, length) in kinds.items():
        short, long = make(length).eval(), make(length * options.times).eval()
        fx_fuse(short)
        one, other = seconds(short, options.turns), seconds(long, options.turns)
        folded = len(Report.of(fx_fuse(long)).folded)
        rows.append(Row(kind, length, one, length * options.times, other, other / one, folded))
    cells = [
        [r.kind, str(r.length), f"{r.seconds:.2f}", str(r.longer), f"{r.seconds_longer:.2f}", f"{r.ratio:.1f}"]
        for r in rows
    ]
    common.show(cells, ["graph", "steps", "s", "steps longer", "s longer", "ratio"])
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
