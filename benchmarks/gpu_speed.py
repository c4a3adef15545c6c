"""Speed of models on a GPU before and after the pass: called as they are, compiled, and without a bias.

The model without norms and the fused one without its biases compute something else, and show where time goes: a
convolution of torch's adds its bias in a kernel of its own, unless a compiler joins it to what follows.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import functools
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import nn
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.cli.measure import finish, ratio, time_in_turn
from fxfuse.cli.settings import DTYPES

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

MODELS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "timm:repvgg_a0")


@dataclass(frozen=True)
class Row:
    """Medians over the turns: milliseconds before, and how many times as fast the others are within a turn."""

    model: str
    batch: int
    before_ms: float
    speed_ups: dict[str, float]


def measure(name: str, batch: int, options: Namespace) -> Row:
    """Time all variants of a model in turn."""
    kind: dict[str, Any] = {"device": "cuda", "dtype": getattr(torch, options.dtype)}
    before = models.build(name, models.find(name))
    models.randomize(before)
    before = before.to(**kind, memory_format=torch.channels_last)
    sample = torch.randn(batch, *models.input_size(before)).to(**kind, memory_format=torch.channels_last)
    fused = fx_fuse(before)
    # Small batches wait for the launches of kernels, which a recorded graph of the GPU has behind it.
    compiled: Callable[[nn.Module], Any] = functools.partial(
        torch.compile, mode="reduce-overhead" if batch == 1 else None
    )
    variants: dict[str, Any] = {
        "before": before,
        "fused": fused,
        "without norms": models.without_norms(before),
        "fused, no bias": _without_bias(fx_fuse(before)),
        "compiled": compiled(before),
        "fused, compiled": compiled(fused),
    }
    with torch.inference_mode():
        for model in variants.values():
            model(sample)  # a graph is recorded at the second call; time_in_turn makes that one
        runs = {key: functools.partial(finish, model, sample) for key, model in variants.items()}
        times = time_in_turn(runs, options.turns, options.seconds)
    torch.compiler.reset()
    speed_ups = {key: ratio(times["before"], mine) for key, mine in times.items() if key != "before"}
    return Row(name, batch, statistics.median(times["before"]), speed_ups)


def _without_bias(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = None
    return model


def main() -> None:
    """Measure model by model."""
    parser = common.parser(__doc__)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 128])
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--seconds", type=float, default=5.0, help="for one row, unless --turns is given")
    parser.add_argument("--turns", type=int, help="how often each variant is timed")
    options = common.parse(parser)
    jobs = [(name, batch) for name in options.models or MODELS for batch in options.batch]
    rows = [measure(name, batch, options) for name, batch in tqdm(jobs, file=sys.stderr)]
    headers = ["model", "batch", "before ms", *rows[0].speed_ups]
    common.show(
        [[r.model, str(r.batch), f"{r.before_ms:.2f}", *(f"{s:.2f}" for s in r.speed_ups.values())] for r in rows],
        headers,
    )
    common.write(options.json, rows, gpu=torch.cuda.get_device_name(), dtype=options.dtype)


if __name__ == "__main__":
    main()
