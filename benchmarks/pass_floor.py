"""What a pass takes that proves nothing, against torch.fx's `fuse`: how near to half of that time a pass can come.

`trace` copies a model shallowly, traces it with torch.fx and generates code, once each. `blind` does the same, and
folds each batch norm that is called on a convolution which nobody else reads, in float64, without asking anything else:
it is wrong on shared layers, hooks, modes, dtypes and whatever else a fold has to look at. All ratios are medians of
those within turns.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import functools
import gc
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import fx, nn
from torch.fx.experimental import optimization
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.cli.measure import ratio, time_in_turn
from fxfuse.modules.lookup import shallow_copy

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = "mobilenet_v2 resnet18 densenet121 efficientnet_b0 shufflenet_v2_x1_0 regnet_y_400mf googlenet".split()


@dataclass(frozen=True)
class Row:
    """Milliseconds of torch.fx's pass, median, and what part of it the others take."""

    model: str
    torch_fx_ms: float
    trace: float
    blind: float
    fx_fuse: float


def trace(model: nn.Module) -> fx.GraphModule:
    """Copy, trace and generate code."""
    return fx.GraphModule(_copied(model), fx.Tracer().trace(model))


@torch.no_grad()
def blind(model: nn.Module) -> fx.GraphModule:
    """Fold by the pattern alone."""
    root = _copied(model)
    graph = fx.Tracer().trace(root)
    children: dict[str, Any] = dict(root.named_modules())
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(children[node.target], nn.modules.batchnorm._BatchNorm):
            continue
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer = children[str(before.target)]
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _fold(layer, children[node.target])
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    return fx.GraphModule(root, graph)


def _fold(layer: Any, norm: Any) -> None:
    """Scale the weight, and shift the bias."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps) * norm.weight
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = norm.bias - norm.running_mean * scale
    bias = bias if layer.bias is None else bias + layer.bias * scale
    layer.weight, layer.bias = (nn.Parameter(t.to(layer.weight.dtype)) for t in (weight, bias))


def _copied(model: nn.Module) -> Any:
    copy = shallow_copy(model)
    for name, child in model.named_children():
        copy._modules[name] = _copied(child)
    return copy


def measure(name: str, turns: int) -> Row:
    """Time all of them in turn."""
    model = models.build(name, models.find(name))
    models.randomize(model)
    passes: dict[str, Callable[[nn.Module], object]] = {
        "torch.fx": optimization.fuse,
        "trace": trace,
        "blind": blind,
        "fx_fuse": fx_fuse,
    }
    runs = {key: functools.partial(run, model) for key, run in passes.items()}
    times = time_in_turn(runs, turns, before=gc.collect)
    ratios = {key: ratio(mine, times["torch.fx"]) for key, mine in times.items()}
    return Row(name, statistics.median(times["torch.fx"]), ratios["trace"], ratios["blind"], ratios["fx_fuse"])


def main() -> None:
    """Measure model by model, and print the medians of all."""
    parser = common.parser(__doc__)
    parser.add_argument("--turns", type=int, default=9, help="how often each pass is timed")
    options = common.parse(parser)
    rows = [measure(name, options.turns) for name in tqdm(options.models or MODELS, file=sys.stderr)]
    columns = [[row.trace for row in rows], [row.blind for row in rows], [row.fx_fuse for row in rows]]
    cells = [[r.model, f"{r.torch_fx_ms:.1f}", *(f"{n:.3f}" for n in (r.trace, r.blind, r.fx_fuse))] for r in rows]
    cells.append(["median", "", *(f"{statistics.median(column):.3f}" for column in columns)])
    common.show(cells, ["model", "torch.fx ms", "trace", "blind", "fx_fuse"])
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
