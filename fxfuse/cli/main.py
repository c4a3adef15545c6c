"""The command line: ``fxfuse bench``, ``explain``, ``export`` and ``refold``.

What a command needs is imported when it runs: torch alone takes seconds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from fxfuse.cli import settings
from fxfuse.cli.parser import BAD_USAGE, parse
from fxfuse.cli.terminal import abandon_output, show, width

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

_Asked = TypeVar("_Asked", settings.Bench, settings.Explain, settings.Export)
LEFT, INTERRUPTED, CLOSED = 3, 130, 141  # the last two as shells have it: 128 and the number of the signal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Returns:
        0; 2, with one sentence on stderr, where it cannot be done; 3 for norms that are left, where that is asked for.
    """
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        status = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        abandon_output()
        return CLOSED
    return status


def _run(options: argparse.Namespace) -> int:
    """Run a command; a ``FuseError`` is printed as what it is."""
    from fxfuse.report.errors import FuseError  # noqa: PLC0415 - it imports torch

    try:
        return COMMANDS[options.command](options)
    except FuseError as error:
        sys.stdout.flush()
        print(f"fxfuse: {error}", file=sys.stderr)
        return BAD_USAGE


def run_bench(options: argparse.Namespace) -> int:
    """Measure, and print a row for each model and batch size, also of those before an error or an interruption."""
    from fxfuse.cli import bench, models, plots  # noqa: PLC0415 - only for this command

    options.models = tuple(options.models) or settings.DEFAULT_MODELS
    options.batches = tuple(dict.fromkeys(options.batches or settings.Bench.batches))
    asked = _asked(settings.Bench, options)
    if options.plot:
        models.need("matplotlib")  # now, and not after minutes of work
    rows: list[bench.Row] = []
    try:
        rows.extend(bench.measure(asked))
    finally:
        if rows:
            show(bench.table(rows, width()))
        if rows and options.json:
            _write_json(options.json, {**bench.facts(asked), "rows": [asdict(row) for row in rows]})
        if rows and options.plot:
            plots.plot_speed_ups(rows, options.plot)
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Print what would be folded, and why the rest would not."""
    from fxfuse.cli import explain  # noqa: PLC0415 - only for this command

    report = explain.explain(_asked(settings.Explain, options))
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        show(report.text(width()))
        if options.html:
            print(f"\nwritten to {options.html}")
    return LEFT if options.fail_on_left and not report.ok else 0


def run_export(options: argparse.Namespace) -> int:
    """Write a fused model to a file, and print how far the file is from the model."""
    from fxfuse.cli import export  # noqa: PLC0415 - only for this command

    if options.input_size:
        options.input_shape = (1, *options.input_size)
    if options.dynamic_batch:
        options.dynamic_axes = {0: "batch", **options.dynamic_axes}
    show(str(export.export(_asked(settings.Export, options))))
    print(f"\nwritten to {options.output}")
    return 0


def run_refold(options: argparse.Namespace) -> int:
    """Put new weights through a saved plan."""
    from fxfuse.cli import refold  # noqa: PLC0415 - only for this command

    count = refold.refold(options.plan, options.weights, options.output)
    print(f"{count} tensors written to {options.output}")
    return 0


COMMANDS = {"bench": run_bench, "explain": run_explain, "export": run_export, "refold": run_refold}


def _asked(kind: type[_Asked], options: argparse.Namespace) -> _Asked:
    """Return the settings of a command, each from the option of its name."""
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})


def _write_json(path: Path, content: Any) -> None:
    """Write ``content``, or say in a sentence why not."""
    from fxfuse.report.errors import FuseError  # noqa: PLC0415 - it imports torch

    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise FuseError(f"the results cannot be written to {path}: {type(error).__name__}: {error}") from error
