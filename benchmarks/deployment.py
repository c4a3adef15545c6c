"""What runtimes fold by themselves, and what fxfuse adds: operations that are left, and milliseconds.

usage: python benchmarks/deployment.py [--models NAME ...] [--runtimes NAME ...] [--turns N]

Each runtime is measured if its package is installed: onnxruntime, openvino, executorch, coremltools (which converts on
Linux, and runs on a Mac).
"""

# ruff: noqa: INP001, T201 - scripts print, and are no package

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import torch
from tabulate import tabulate
from torch import Tensor, nn

from fxfuse import fx_fuse
from fxfuse.cli import failures, models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Deployed(NamedTuple):
    """A model in a runtime.

    Attributes:
        operations: how many operations it runs.
        run: one forward pass; None where this machine cannot.
    """

    operations: int
    run: Callable[[], object] | None


def onnxruntime(model: nn.Module, x: Tensor) -> Deployed:
    """Export to ONNX with torch's own optimizer, and let onnxruntime optimize that."""
    import onnx  # noqa: PLC0415 - each runtime is an option
    import onnxruntime as ort  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path, optimized = Path(folder) / "model.onnx", Path(folder) / "optimized.onnx"
        torch.onnx.export(model, (x,), f=path, dynamo=True, external_data=False, verbose=False)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        operations = len(onnx.load(optimized).graph.node)
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return Deployed(operations, lambda: session.run(None, feed))


def openvino(model: nn.Module, x: Tensor) -> Deployed:
    """Convert an exported program, and compile it for the CPU."""
    import openvino as ov  # noqa: PLC0415

    converted = ov.convert_model(torch.export.export(model, (x,)))
    compiled = ov.compile_model(converted, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    outside = ("Input", "Output", "Const", "Reorder", "Reshape")
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    return Deployed(sum(kind not in outside for kind in kinds), lambda: compiled(x.numpy()))


def executorch(model: nn.Module, x: Tensor) -> Deployed:
    """Lower an exported program to XNNPACK, and count what it gets and what runs beside it."""
    from executorch.backends.xnnpack._passes import XNNPACKPassManager  # noqa: PLC0415
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
    from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415
    from executorch.runtime import Runtime  # noqa: PLC0415

    inside: list[Any] = []  # what XNNPACK's own passes leave
    transform = XNNPACKPassManager.transform

    def transformed(manager: Any) -> Any:
        inside.append(transform(manager))
        return inside[-1]

    with mock.patch.object(XNNPACKPassManager, "transform", transformed):
        edge = to_edge_transform_and_lower(torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()])
    operations = sum(_operations(program.graph) for program in (edge.exported_program(), *inside)) - 2 * len(inside)
    loaded = Runtime.get().load_program(edge.to_executorch().buffer)
    method = loaded.load_method("forward")
    return Deployed(operations, lambda: (loaded, method.execute((x,))))  # a method does not keep its program


def _operations(graph: torch.fx.Graph) -> int:
    """Return how many operations are in a graph; of a delegate these are its call and the item taken of its result."""
    return sum(node.op == "call_function" for node in graph.nodes)


def coremltools(model: nn.Module, x: Tensor) -> Deployed:
    """Convert to an ML program, with the passes that fold."""
    import coremltools as ct  # noqa: PLC0415

    with torch.no_grad():
        traced = torch.jit.trace(model, x)
    options = {"convert_to": "mlprogram", "skip_model_load": True, "compute_precision": ct.precision.FLOAT32}
    converted = ct.convert(traced, inputs=[ct.TensorType(shape=tuple(x.shape))], **options)
    operations = converted._mil_program.functions["main"].operations
    return Deployed(sum(operation.op_type != "const" for operation in operations), None)


RUNTIMES: Mapping[str, Callable[[nn.Module, Tensor], Deployed]] = {
    run.__name__: run for run in (onnxruntime, openvino, executorch, coremltools)
}


class Twice(nn.Module):
    """A convolution that is called twice, with a norm of its own behind each call, as in a detector's head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

    def forward(self, x: Tensor) -> Tensor:
        """Call it with two values."""
        return self.norms[1](self.conv(self.norms[0](self.conv(x)).relu()))


class Scaled(nn.Module):
    """A layer norm, two linear layers and a scale for each channel, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.gamma = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled branch to its input."""
        return x + self.gamma * self.body(x)


class Branches(nn.Module):
    """The three branches of RepVGG."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.identity = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branches."""
        return torch.relu(self.square(x) + self.point(x) + self.identity(x))


def cases() -> dict[str, nn.Module]:
    """Return small models, by name."""
    conv = nn.Conv2d(8, 8, 3)
    return {
        "convolution, norm": nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU()),
        "norm, convolution": nn.Sequential(nn.BatchNorm2d(8), conv, nn.ReLU()),
        "convolution, pool, norm": nn.Sequential(conv, nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.ReLU()),
        "one convolution called twice, two norms": Twice(),
        "layer norm, linears, layer scale": Scaled(),
        "three branches of RepVGG": Branches(),
    }


def counted(model: nn.Module, x: Tensor, deploy: Callable[[nn.Module, Tensor], Deployed]) -> list[Deployed | str]:
    """Return a model in a runtime as it is and fused, or the kind of error where it is none."""
    return [_deployed(version, x, deploy) for version in (model, fx_fuse(model))]


def _deployed(model: nn.Module, x: Tensor, deploy: Callable[[nn.Module, Tensor], Deployed]) -> Deployed | str:
    try:
        with failures.quiet():
            return deploy(model, x)
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is its answer
        return type(error).__name__


def written(found: list[Deployed | str]) -> str:
    """Return how many operations there are before and after."""
    return " -> ".join(one if isinstance(one, str) else str(one.operations) for one in found)


def milliseconds(found: list[Deployed | str], turns: int) -> str:
    """Return the time before and after, each the median of alternating turns, and the median of the ratios."""
    runs = [one.run for one in found if isinstance(one, Deployed) and one.run is not None]
    if len(runs) < 2:
        return "-"
    times: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if turn:  # the first one warms up
                taken.append(1e3 * (time.perf_counter() - start))
    ratio = statistics.median(before / after for before, after in zip(*times, strict=True))
    before, after = map(statistics.median, times)
    return f"{before:.1f} -> {after:.1f} ms ({ratio:.2f}x)"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["timm:mobileone_s0", "timm:repvgg_a0", "resnet50"])
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--turns", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runtimes = {name: RUNTIMES[name] for name in options.runtimes if importlib.util.find_spec(name)}
    rows = []
    for name, model in cases().items():
        models.randomize(model.eval())
        x = torch.randn(1, 10, 16) if isinstance(model, Scaled) else torch.randn(1, 8, 16, 16)
        rows.append([name, *(written(counted(model, x, deploy)) for deploy in runtimes.values())])
        print(rows[-1], flush=True)
    print(tabulate(rows, headers=("operations", *runtimes), tablefmt="github"), flush=True)
    rows = []
    for name in options.models:
        model = models.build(name, models.find(name))
        models.randomize(model)
        x = torch.randn(1, *models.input_size(model))
        for runtime, deploy in runtimes.items():
            found = counted(model, x, deploy)
            rows.append([name, runtime, written(found), milliseconds(found, options.turns)])
            print(rows[-1], flush=True)
    print(tabulate(rows, headers=("model", "runtime", "operations", "one image"), tablefmt="github"))


if __name__ == "__main__":
    main()
