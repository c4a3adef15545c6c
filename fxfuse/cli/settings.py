"""What the user asks a command for.  Nothing here needs torch, so that ``--help`` is there at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_MODELS = ("resnet18", "resnet34", "resnet50", "resnet152", "mobilenet_v2")
DTYPES = ("float32", "float16", "bfloat16")
PLOT_FORMATS = (".png", ".svg", ".pdf")
PAGE_FORMATS = (".html", ".htm")
EXPORT_FORMATS = (".onnx", ".pt2")


@dataclass(frozen=True)
class Bench:
    """What to measure, and for how long.

    Attributes:
        models: names that `models.find` knows.
        batches: the batch sizes, a row of the table for each.
        threads: of torch; None for torch's own choice.
        dtype: of the weights and the input while the models are timed.
        device: where they are timed; the pass and the error are measured on the CPU.
        channels_last: whether they are timed in that memory format.
        repeats: how many rounds are timed; None to go on for `seconds`.
        seconds: the time for one row, unless `repeats` is given.
        input_size: the shape of one sample; None for what suits the model.
        lower: whether the fused model is timed with its kernels too.
        weights: a file of weights of the only model; None for random ones.
    """

    models: tuple[str, ...] = DEFAULT_MODELS
    batches: tuple[int, ...] = (1, 32)
    threads: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    channels_last: bool = False
    repeats: int | None = None
    seconds: float = 10.0
    input_size: tuple[int, ...] | None = None
    lower: bool = False
    weights: Path | None = None


@dataclass(frozen=True)
class Explain:
    """Of which model to tell what would be folded.

    Attributes:
        model: a name that `models.find` knows, or the path of a saved exported program.
        input_size: the shape of one sample; None for what suits a model of torchvision or timm.
        html: where to write a page; None for nowhere.
        lower: whether to tell what each kernel of the lowered model takes in.
        weights: a file of weights; None for random ones.
    """

    model: str
    input_size: tuple[int, ...] | None = None
    html: Path | None = None
    lower: bool = False
    weights: Path | None = None


@dataclass(frozen=True)
class Export:
    """What to export, and how.

    Attributes:
        model: a name that `models.find` knows, or the path of a saved exported program.
        output: where to write; the suffix is the format.
        input_shape: of the input, batch included; None for a batch of one of what suits the model.
        input: a file of NumPy with the input to compare on; its shape and dtype are those of the export.
        dynamic_axes: axes of the input that may have any size -> what they are called.
        verify: write only what agrees with the original.
        weights: a file of weights; None for random ones.
    """

    model: str
    output: Path
    input_shape: tuple[int, ...] | None = None
    input: Path | None = None
    dynamic_axes: Mapping[int, str] = field(default_factory=dict)
    verify: bool = False
    weights: Path | None = None
