"""Seconds of fusing with example inputs, for models that cannot be traced as a whole.

Each model is watched on its inputs once, and run on them twice to compare.  Beside `fx_fuse(model, inputs)` stand the
forward by itself, the pass without inputs, and `torch.export.export`, which takes the same inputs (`torch.fx` cannot
trace any of these models).  Times are of the processor, medians over the turns; the first call of each is not counted.
The models are a detector of torchvision, those of segmentation_models_pytorch, and small ones of transformers; with
ultralytics on the path, YOLO too.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import torch

from fxfuse import Inputs, fx_fuse
from fxfuse.cli.models import randomize

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the models of the tests

from tests.zoo.counts import builders

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

SIZE = 96
NAMES = (
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn smp/UnetPlusPlus "
    "smp/Linknet smp/FPN smp/PSPNet smp/DeepLabV3Plus smp/UPerNet transformers/MobileNetV1Model "
    "transformers/MobileNetV2Model transformers/MobileViTModel transformers/ResNetModel transformers/RegNetModel "
    "transformers/SwiftFormerModel transformers/CvtModel transformers/HGNetV2Backbone "
    "transformers/UperNetForSemanticSegmentation transformers/DetrModel transformers/RTDetrModel"
).split()
YOLO = "yolov8n yolov9t yolo11n".split()


@dataclass(frozen=True)
class Row:
    """Times of one model, in seconds of the processor.

    Attributes:
        model: its name.
        forward: of one forward.
        plain: of the pass without inputs.
        seconds: of the pass with inputs.
        export: of torch.export; None where it fails.
    """

    model: str
    forward: float
    plain: float
    seconds: float
    export: float | None


def yolo(name: str) -> nn.Module:
    """A detector of ultralytics."""
    model: nn.Module = import_module("ultralytics.nn.tasks").DetectionModel(f"{name}.yaml", verbose=False)
    return model


def inputs_of(name: str, model: nn.Module) -> Inputs:
    """One call of a model, as small as it takes."""
    if name.startswith("transformers/"):
        size = getattr(model.config, "image_size", SIZE)
        return Inputs(pixel_values=torch.randn(1, 3, *([size] * 2 if isinstance(size, int) else size)))
    detects = name.startswith("torchvision/")
    return Inputs([torch.randn(3, SIZE, SIZE)]) if detects else Inputs(torch.randn(1, 3, SIZE, SIZE))


def seconds(call: Callable[[], Any]) -> float | None:
    """Seconds of the processor that a call takes; None if it raises."""
    begin = time.process_time()
    try:
        call()
    except Exception:  # noqa: BLE001 - an exporter may raise anything
        return None
    return time.process_time() - begin


def median(values: list[float | None]) -> float | None:
    """The median of the times that there are."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def row(name: str, build: Callable[[], nn.Module], turns: int) -> Row:
    """The times of one model."""
    torch.manual_seed(0)
    model = build().eval()
    randomize(model)
    inputs = inputs_of(name, model)
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: model(*inputs.args, **inputs.kwargs),
        "plain": lambda: fx_fuse(model),
        "seconds": lambda: fx_fuse(model, inputs),
        "export": lambda: torch.export.export(model, inputs.args, dict(inputs.kwargs)),
    }
    with torch.no_grad():
        times = {key: [seconds(call) for _ in range(turns + 1)][1:] for key, call in calls.items()}
    found: dict[str, Any] = {key: median(values) for key, values in times.items()}
    return Row(name, **found)


def main() -> None:
    """Print the table."""
    parser = common.parser(__doc__)
    parser.add_argument("--turns", type=int, default=3)
    options = common.parse(parser)
    warnings.simplefilter("ignore")
    logging.disable()  # an exporter that fails logs the graph
    made = {name: build for name, build in builders().items() if name in NAMES}
    if find_spec("ultralytics"):
        made |= {name: lambda name=name: yolo(name) for name in YOLO}  # type: ignore[misc]
    rows = [row(name, made[name], options.turns) for name in options.models or made]
    table = [
        [r.model, *(f"{1000 * t:.0f}" if t is not None else "fails" for t in (r.forward, r.plain, r.seconds, r.export))]
        for r in rows
    ]
    for line, r in zip(table, rows, strict=True):
        line.append(f"{r.seconds / r.export:.2f}" if r.export else "")
    head = ["model", "forward, ms", "fx_fuse(model), ms", "fx_fuse(model, inputs), ms", "torch.export, ms"]
    common.show(table, [*head, "inputs / export"])
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
