"""The error of half-precision models before and after the pass, against float64.

Three models are compared: (a) `model.to(half)`, not fused; (b) `fx_fuse(model.to(half))`; (c)
`fx_fuse(model).to(half)`. Two copies in float64 tell what is exact: of the float32 model, and of the half model,
whose weights are rounded already. The input is rounded to half for all of them.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import copy
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import common
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models

if TYPE_CHECKING:
    from argparse import Namespace

MODELS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
Error = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """Relative errors of (a), (b), (c), as means over the draws of weights and inputs.

    Attributes:
        model: its name.
        dtype: of (a), (b), (c).
        reference: whose float64 copy is exact: that of the float32 or of the half model.
        rms: root of the mean square of the error, by that of the exact output.
        peak: largest error, by the largest exact output.
        worse: in how many of the draws the rms of (b) is larger than that of (a).
        draws: how many there were.
    """

    model: str
    dtype: str
    reference: str
    rms: tuple[float, ...]
    peak: tuple[float, ...]
    worse: int
    draws: int


def calibrate(model: nn.Module, size: int, seed: int) -> None:
    """Give the norms the statistics of their own inputs, as training does, and affine parameters at random."""
    models.randomize(model, seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    for norm in models.norms(model).values():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, size, size, generator=draw))
    model.eval()


def errors(model: nn.Module, sample: Tensor) -> dict[str, list[Error]]:
    """For each reference, the errors of (a), (b), (c) on one half-precision sample."""
    half = copy.deepcopy(model).to(sample.dtype)
    variants = (half, fx_fuse(half), fx_fuse(model).to(sample.dtype))
    exact = {"float32": copy.deepcopy(model).double(), "half": copy.deepcopy(half).double()}
    with torch.inference_mode():
        outputs = [variant(sample).double() for variant in variants]
        expected = {name: reference(sample.double()) for name, reference in exact.items()}
    return {name: [_error(output, wanted) for output in outputs] for name, wanted in expected.items()}


def measure(name: str, dtype: str, options: Namespace) -> list[Row]:
    """Average over the draws: each has its own affine parameters, statistics and input."""
    found: dict[str, list[list[Error]]] = defaultdict(list)
    for seed in range(options.draws):
        model = models.build(name, models.find(name))
        if options.statistics == "calibrated":
            calibrate(model, options.size, seed)
        else:
            models.randomize(model, seed)
        draw = torch.Generator().manual_seed(seed)
        sample = torch.randn(options.batch, 3, options.size, options.size, generator=draw).to(DTYPES[dtype])
        for reference, triple in errors(model, sample).items():
            found[reference].append(triple)
    return [_row(name, dtype, reference, triples) for reference, triples in found.items()]


def _row(name: str, dtype: str, reference: str, triples: list[list[Error]]) -> Row:
    rms, peak = (tuple(statistics.mean(triple[n][kind] for triple in triples) for n in range(3)) for kind in range(2))
    worse = sum(b[0] > a[0] for a, b, _ in triples)
    return Row(name, dtype, reference, rms, peak, worse, len(triples))


def _error(output: Tensor, exact: Tensor) -> Error:
    gap = output - exact
    rms = gap.square().mean() / exact.square().mean()
    return float(rms.sqrt()), float(gap.abs().max() / exact.abs().max())


def _cells(row: Row) -> list[str]:
    ratio = f"{row.rms[1] / row.rms[0]:.2f}"
    errors = [f"{value:.2e}" for value in (*row.rms, *row.peak)]
    return [row.model, row.dtype, row.reference, *errors[:3], ratio, f"{row.worse}/{row.draws}", *errors[3:]]


def main() -> None:
    """Measure model by model."""
    parser = common.parser(__doc__)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--statistics", choices=("calibrated", "random"), default="calibrated")
    parser.add_argument("--draws", type=int, default=4, help="of weights and inputs")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=96, help="height and width of the input")
    options = common.parse(parser)
    jobs = [(name, dtype) for name in options.models or MODELS for dtype in options.dtype]
    rows: list[Row] = []
    try:
        for name, dtype in tqdm(jobs, file=sys.stderr):
            rows += measure(name, dtype, options)
    finally:  # also what was measured before an interruption
        headers = ["model", "dtype", "exact", *("rms (a)", "rms (b)", "rms (c)"), "b/a", "b worse"]
        common.show([_cells(row) for row in rows], [*headers, *("max (a)", "max (b)", "max (c)")])
        common.write(options.json, rows, statistics=options.statistics, batch=options.batch, size=options.size)


if __name__ == "__main__":
    main()
