"""Speed of a model before, folded and lowered, beside what else makes a model fast on a CPU.

All of them run the fused model but for `before` and torch's two optimizers, which fold by themselves. They take turns
in one process; a number is the median, over the turns, of the ratio of the processor time of `before` to its own. What
it takes to prepare each of them is the processor time before its second call.

    python benchmarks/lowered_speed.py resnet18 mobilenet_v2 --threads 1 --tools lowered freezing
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import copy
import functools
import io
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import nn
from tqdm import tqdm

import fxfuse
from fxfuse.cli import failures, models

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

DEFAULT = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "densenet121", "vit_b_16")


@dataclass(frozen=True)
class Row:
    """Ratios to the model before, the seconds of preparation, and the largest relative error."""

    model: str
    batch: int
    before_ms: float
    turns: int
    speed_up: dict[str, float]
    seconds: dict[str, float]
    error: dict[str, float]


def folded(fused: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The fused model as it is."""
    del sample
    return fused


def lowered(fused: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The fused model with its kernels."""
    return fxfuse.lower(fused, sample)


def freezing(fused: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The fused model compiled by inductor, with frozen weights."""
    from torch._inductor import config  # noqa: PLC0415 - it takes seconds to import

    torch._dynamo.reset()
    config.freezing = True
    compiled = torch.compile(copy.deepcopy(fused))
    compiled(sample)
    return compiled


def jit_optimizer(model: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The model before, by TorchScript's optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, sample)))


def fx_optimizer(model: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The model before, by torch.fx's experimental optimizer."""
    from torch.fx.experimental.optimization import optimize_for_inference  # noqa: PLC0415 - experimental

    del sample
    return optimize_for_inference(model)


def openvino(fused: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The fused model in OpenVINO, with full precision."""
    ov = models.need("openvino")
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.compile_model(ov.convert_model(fused, example_input=sample), "CPU", settings)
    return lambda x: torch.from_numpy(request(x.numpy())[0])


def onnx_runtime(fused: nn.Module, sample: torch.Tensor) -> Callable[..., Any]:
    """The fused model in ONNX Runtime."""
    runtime, file = models.need("onnxruntime"), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter: Any = torch.onnx.export
        exporter(fused, (sample,), file, dynamo=False, input_names=["x"])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


TOOLS: dict[str, Callable[[nn.Module, torch.Tensor], Callable[..., Any]]] = {
    "folded": folded,
    "lowered": lowered,
    "freezing": freezing,
    "jit": jit_optimizer,
    "fx": fx_optimizer,
    "openvino": openvino,
    "onnxruntime": onnx_runtime,
}
TAKES_MODEL = ("jit", "fx")


def measure(name: str, batch: int, options: Namespace) -> Row:
    """Time the model and what the tools make of it, in turn."""
    before = models.build(name, models.find(name)).float().eval()
    models.randomize(before)
    sample = torch.randn(batch, *models.input_size(before))
    fused = fxfuse.fx_fuse(before)
    expected = before(sample)
    runs: dict[str, Callable[..., Any]] = {"before": before}
    seconds, error = {}, {}
    for tool in options.tools:
        start = time.process_time()
        try:
            made = TOOLS[tool](before if tool in TAKES_MODEL else fused, sample)
            given = made(sample)
        except Exception as problem:  # noqa: BLE001 - what a tool cannot do is a result too
            print(f"{name}: {tool}: {failures.first_line(problem)}", file=sys.stderr)  # noqa: T201
            continue
        seconds[tool] = time.process_time() - start
        error[tool] = float((given - expected).abs().max() / expected.abs().max())
        runs[tool] = made
    times = _in_turn({key: functools.partial(run, sample) for key, run in runs.items()}, options)
    ratios = {key: [a / b for a, b in zip(times["before"], times[key], strict=True)] for key in runs}
    speed_up = {key: statistics.median(values) for key, values in ratios.items()}
    before_ms = 1000 * statistics.median(times["before"])
    return Row(name, batch, before_ms, len(times["before"]), speed_up, seconds, error)


def _in_turn(runs: dict[str, Callable[[], object]], options: Namespace) -> dict[str, list[float]]:
    """Return the processor time of each run in each turn."""
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {key: [] for key in runs}
    order, end = list(runs), time.perf_counter() + options.seconds
    while len(times["before"]) < options.turns or time.perf_counter() < end:
        for key in order:
            start = time.process_time()
            runs[key]()
            times[key].append(time.process_time() - start)
        order.append(order.pop(0))
    return times


def main() -> None:
    """Print the table."""
    made = common.parser(__doc__)
    made.add_argument("--batch", type=int, nargs="+", default=[1])
    made.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    made.add_argument("--turns", type=int, default=7, help="at least so many turns")
    made.add_argument("--seconds", type=float, default=0.0, help="go on at least so long")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the speeds there")
    options = common.parse(made)
    names, rows = options.models or DEFAULT, []
    with torch.no_grad():
        for name in tqdm(names, file=sys.stderr):
            for batch in options.batch:
                rows.append(measure(name, batch, options))
                print(rows[-1], file=sys.stderr)  # noqa: T201 - compilers take minutes, and may not come to an end
    headers = ("model", "batch", "before", *options.tools)
    cells = [
        (row.model, str(row.batch), f"{row.before_ms:.1f} ms", *(_ratio(row, tool) for tool in options.tools))
        for row in rows
    ]
    common.show(cells, headers)
    for tool in options.tools:
        spent = [row.seconds[tool] for row in rows if tool in row.seconds]
        if spent:
            print(f"{tool}: prepared in {min(spent):.2f} to {max(spent):.2f} s of processor time")  # noqa: T201
    common.write(options.json, rows)
    if options.plot:
        plot(rows, options.tools, options.plot)


def plot(rows: list[Row], tools: list[str], path: Path) -> None:
    """Draw a group of bars for each model and batch, and write the picture."""
    figure, axes = models.need("matplotlib.pyplot").subplots(figsize=(1.6 + 1.5 * len(rows), 4), layout="constrained")
    width = 0.8 / len(tools)
    for number, tool in enumerate(tools):
        known = [(place, row.speed_up[tool]) for place, row in enumerate(rows) if tool in row.speed_up]
        places = [place + (number - (len(tools) - 1) / 2) * width for place, _ in known]
        axes.bar(places, [speed for _, speed in known], width=0.92 * width, label=tool)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [f"{row.model}\nbatch {row.batch}" for row in rows])
    axes.set_ylabel("times as fast as the model before, in eager mode")
    axes.legend(ncols=len(tools), fontsize=8)
    figure.savefig(path, dpi=110)


def _ratio(row: Row, tool: str) -> str:
    return f"{row.speed_up[tool]:.2f}" if tool in row.speed_up else "-"


if __name__ == "__main__":
    main()
