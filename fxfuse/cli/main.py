"""The command line: ``fxfuse bench``, ``fxfuse explain`` and ``fxfuse export``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

import fxfuse
from fxfuse import FuseError, Report, explain, fx_fuse, lower
from fxfuse.cli import bench, export, export_formats, html_report, models, plots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PLOT_FORMATS = (".png", ".svg", ".pdf")
BAD_USAGE, INTERRUPTED = 2, 130
MODEL_HELP = "a model of torchvision, timm:NAME, or package.module:factory"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 2, with one sentence on stderr, where it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except FuseError as error:
        print(f"fxfuse: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def run_bench(options: argparse.Namespace) -> None:
    """Measure, and print a row for each model and batch size, also of those before an error."""
    settings = bench.Settings(
        models=tuple(options.models) or models.DEFAULT_MODELS,
        batches=tuple(options.batch),
        threads=options.threads,
        dtype=DTYPES[options.dtype],
        device=options.device,
        channels_last=options.channels_last,
        repeats=options.repeats,
        seconds=options.seconds,
        input_size=_size(options.input_size),
        lower=options.lower,
    )
    if options.plot:
        models.need("matplotlib")  # now, and not after minutes of work
    rows: list[bench.Row] = []
    try:
        rows.extend(bench.measure(settings))
    finally:
        if rows:
            print(bench.table(rows))
    if options.json:
        _write_json(options.json, {**settings.to_dict(), "rows": [asdict(row) for row in rows]})
    if options.plot:
        plots.plot_speed_ups(rows, options.plot)


def run_explain(options: argparse.Namespace) -> None:
    """Print what would be folded, and why the rest would not."""
    model = models.build(options.model, models.find(options.model))
    size = _size(options.input_size)
    example = (torch.zeros(1, *size),) if size else None
    if options.html:
        report = html_report.write(options.html, model, example, title=options.model)
    else:
        report = explain(model, example)
    if options.lower:
        report = Report.of(lower(fx_fuse(model, example), example))
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    if options.html and not options.json:
        print(f"\nwritten to {options.html}")


def run_export(options: argparse.Namespace) -> None:
    """Write a fused model to a file, and print how far the file is from the model."""
    size = _size(options.input_size)
    settings = export.Settings(
        model=options.model,
        output=options.output,
        input_shape=options.input_shape or (size and (1, *size)),
        dynamic_batch=options.dynamic_batch,
        verify=options.verify,
    )
    print(export.export(settings))
    print(f"\nwritten to {settings.output}")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and leave."""
        self.exit(BAD_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    """All commands and options."""
    purpose = "Fold batch norms into the convolutions and linears around them."
    parser = _Parser(prog="fxfuse", description=purpose)
    parser.add_argument("--version", action="version", version=f"fxfuse {fxfuse.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_bench(commands.add_parser("bench", help="time models before and after"))
    _add_explain(commands.add_parser("explain", help="print what would be folded, and why not the rest"))
    _add_export(commands.add_parser("export", help="write a fused model to a file: ONNX, or an exported program"))
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse bench``."""
    default = bench.Settings()
    add = parser.add_argument
    parser.set_defaults(command=run_bench)
    add("models", nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; default: {' '.join(default.models)}")
    add("--batch", type=_positive, nargs="+", metavar="N", default=default.batches, help="default: 1 and 32")
    add("--threads", type=_positive, metavar="N", help="threads of torch; default: torch's own choice")
    add("--dtype", choices=DTYPES, default="float32", help="default: %(default)s")
    add(
        "--device",
        type=_device,
        default=default.device,
        help="where to time the models: cpu, cuda; default: %(default)s",
    )
    add("--channels-last", action="store_true", help="time the models in this memory format")
    add("--repeats", type=_positive, metavar="N", help="rounds to time; default: what --seconds allows")
    add(
        "--seconds",
        type=_positive,
        metavar="S",
        default=default.seconds,
        help="time of a row; default: %(default)g",
    )
    _add_input_size(parser)
    add("--lower", action="store_true", help="time the fused model with its kernels too")
    add("--json", type=_output, metavar="FILE", help="write settings and rows to this file too")
    add("--plot", type=_image, metavar="FILE", help="draw the speed-ups as a bar chart: .png, .svg or .pdf")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse explain``."""
    parser.set_defaults(command=run_explain)
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_input_size(parser)
    parser.add_argument("--lower", action="store_true", help="print what each kernel of the lowered model takes in too")
    parser.add_argument("--json", action="store_true", help="print for machines")
    help_text = "write a page with the graphs before and after, and all decisions: .html"
    parser.add_argument("--html", type=_page, metavar="FILE", help=help_text)


def _add_export(parser: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse export``."""
    parser.set_defaults(command=run_export)
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"{MODEL_HELP}, or a saved exported program: FILE.pt2")
    add("output", type=_exported, metavar="OUTPUT", help="the file to write: .onnx or .pt2")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--input-shape", type=_shape, metavar="B,C,H,W", help="shape of the input, with the batch")
    _add_input_size(sizes)
    add("--dynamic-batch", action="store_true", help="take batches of any size")
    add("--verify", action="store_true", help="write nothing that differs from the model by more than rounding")


def _add_input_size(parser: argparse._ActionsContainer) -> None:
    """The option that all commands share."""
    help_text = "shape of one sample, without the batch; one number N means 3 N N"
    parser.add_argument("--input-size", type=_positive, nargs="+", metavar="N", help=help_text)


def _size(numbers: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape of one sample: a single number is the side of an image."""
    if numbers is None:
        return None
    return (3, numbers[0], numbers[0]) if len(numbers) == 1 else tuple(numbers)


def _positive(text: str) -> int:
    """A whole number over zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number over zero')
    return int(text)


def _device(text: str) -> str:
    """A device that torch can use here."""
    found = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count()
    usable = ["cpu", *([found.type, *(f"{found.type}:{index}" for index in range(count))] if found else [])]
    if text not in usable:
        raise argparse.ArgumentTypeError(f'"{text}" is no device that torch finds here; it finds {", ".join(usable)}')
    return text


def _shape(text: str) -> tuple[int, ...]:
    """Whole numbers over zero, with commas between them."""
    return tuple(_positive(number.strip()) for number in text.split(","))


def _output(text: str) -> Path:
    """A file in a folder that exists: better told now than after minutes of work."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        why = "it is a folder itself" if path.is_dir() else "its folder does not exist, or does not let you write"
        raise argparse.ArgumentTypeError(f'"{text}" cannot be written: {why}')
    return path


def _page(text: str) -> Path:
    """A file that a page can be written to."""
    return _output_in((".html", ".htm"), text)


def _image(text: str) -> Path:
    """A file that a chart can be written to."""
    return _output_in(PLOT_FORMATS, text)


def _exported(text: str) -> Path:
    """A file that a model can be written to."""
    return _output_in(export_formats.FORMATS, text)


def _output_in(suffixes: Iterable[str], text: str) -> Path:
    """A file with one of the suffixes."""
    path = _output(text)
    if path.suffix not in suffixes:
        raise argparse.ArgumentTypeError(f'"{text}" must end in {" or ".join(suffixes)}')
    return path


def _write_json(path: Path, content: object) -> None:
    """Write ``content``, or say in a sentence why not."""
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise FuseError(f"the results cannot be written to {path}: {models.first_line(error)}") from error
