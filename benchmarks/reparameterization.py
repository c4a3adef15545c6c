"""Kernels that are left of models whose authors wrote code of their own to make branches one, against that code.

timm calls it `reparameterize_model`.  Each model is merged as it is traced and as it is exported, in float64, and
compared with itself; timm's code merges in float32, and its result is converted.  With --speed, five
of the models are timed at batch 1, in turn: as they are, merged by timm, merged by fxfuse.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import copy
import functools
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.cli.measure import ratio, time_in_turn
from fxfuse.modules.kernels import Kernels

if TYPE_CHECKING:
    from argparse import Namespace

# One model for each family of timm that has such code.
FAMILIES = tuple(
    "repvgg_a0 mobileone_s1 fastvit_t8 repvit_m0_9 repghostnet_100 ghostnetv3_100 lcnetv2_base nextvit_small "
    "efficientvit_m0 levit_128s tiny_vit_5m_224 shvit_s1 iformer_h efficientvim_m1".split()
)
SPEED = ("repvgg_a0", "mobileone_s1", "fastvit_t8", "repvit_m0_9", "repghostnet_100")
KEYS = ("before", "timm", "fxfuse")


@dataclass(frozen=True)
class Row:
    """One model: its kernels before, after timm's code, and after fxfuse in two forms, with the largest error."""

    model: str
    before: Kernels
    timm: Kernels
    traced: Kernels
    exported: Kernels
    error: float


@dataclass(frozen=True)
class Times:
    """One model at batch 1: milliseconds, and the medians of ratios within a turn."""

    model: str
    before_ms: float
    timm_ms: float
    fxfuse_ms: float
    before_by_fxfuse: float
    timm_by_fxfuse: float
    turns: int


def _made(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A model with random statistics, what timm makes of it, and an input."""
    reparameterize = models.need("timm.utils.model").reparameterize_model
    model = models.build(f"timm:{name}", models.find(f"timm:{name}"))
    models.randomize(model)
    return model, reparameterize(copy.deepcopy(model)), torch.randn(1, *models.input_size(model))


def measure(name: str) -> Row:
    """Merge one model in both forms."""
    model, merged, x = _made(name)
    model, merged, x = model.double(), merged.double(), x.double()
    with torch.no_grad():
        expected = model(x)
    forms: list[Any] = [fx_fuse(model), fx_fuse(torch.export.export(model, (x,)))]
    runs = [form.module() if isinstance(form, ExportedProgram) else form for form in forms]
    with torch.no_grad():
        error = max(float((run(x) - expected).abs().max() / expected.abs().max()) for run in runs)
    traced, exported = (Kernels.of(run, x) for run in runs)
    return Row(name, Kernels.of(model, x), Kernels.of(merged, x), traced, exported, error)


def time_models(name: str, options: Namespace) -> Times:
    """Time the model as it is, merged by timm, and merged by fxfuse."""
    model, merged, x = _made(name)
    variants = dict(zip(KEYS, (model, merged, fx_fuse(model)), strict=True))
    runs = {key: functools.partial(variant, x) for key, variant in variants.items()}
    with torch.inference_mode():
        times = time_in_turn(runs, options.turns, options.seconds)
    middle = [statistics.median(times[key]) for key in variants]
    before, timm = (ratio(times[key], times["fxfuse"]) for key in KEYS[:2])
    return Times(name, middle[0], middle[1], middle[2], before, timm, len(times["timm"]))


def main() -> None:
    """Measure model by model."""
    parser = common.parser(__doc__)
    parser.add_argument("--speed", action="store_true", help="time the models instead of counting their kernels")
    parser.add_argument("--seconds", type=float, default=30.0, help="for one model, unless --turns is given")
    parser.add_argument("--turns", type=int, help="how often each model is timed")
    options = common.parse(parser)
    if options.speed:
        times = [time_models(name, options) for name in tqdm(options.models or SPEED, file=sys.stderr)]
        cells = [
            [t.model, *(f"{ms:.1f}" for ms in (t.before_ms, t.timm_ms, t.fxfuse_ms)),
             f"{t.before_by_fxfuse:.2f}", f"{t.timm_by_fxfuse:.3f}", str(t.turns)]
            for t in times
        ]  # fmt: skip
        headers = ["model", "before ms", "timm ms", "fxfuse ms", "before/fxfuse", "timm/fxfuse", "turns"]
        common.show(cells, headers)
        common.write(options.json, times)
        return
    rows = [measure(name) for name in tqdm(options.models or FAMILIES, file=sys.stderr)]
    print("convolutions / batch norms / all kernels but views\n")
    table = [[r.model, *map(str, (r.before, r.timm, r.traced, r.exported)), f"{r.error:.1e}"] for r in rows]
    common.show(table, ["model", "before", "timm", "fxfuse, traced", "fxfuse, exported", "error"])
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
