"""What the benchmarks share: their command line, and how results are printed and written."""

# ruff: noqa: INP001, T201 - scripts print, and are no package

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tabulate import tabulate

from fxfuse.cli import models

if TYPE_CHECKING:
    from collections.abc import Sequence

MEGABYTE = 1_000_000


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("models", nargs="*", metavar="MODEL", help="torchvision's name, timm:NAME, or module:factory")
    made.add_argument("--threads", type=int, help="of torch")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, with all digits")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and set the threads."""
    options = made.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def classifiers(limit: float = 400 * MEGABYTE) -> list[str]:
    """The classifiers of torchvision whose float32 weights are no larger than ``limit`` bytes."""
    zoo = models.need("torchvision.models")
    names = zoo.list_models(module=zoo)
    return [name for name in names if 4 * _parameters(zoo, name) <= limit]


def machine() -> str:
    """What a result depends on, in one line."""
    torchvision = models.need("torchvision")
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads,"
        f" Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    )


def show(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> None:
    """Print a table in the form of docs/measurements.md: the first column is a name, the others are numbers."""
    align = ("left", *["right"] * (len(headers) - 1))
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align))


def write(path: Path | None, rows: Sequence[Any], **summary: Any) -> None:
    """Write rows, which are dataclasses, as JSON, if there is a path."""
    print(f"\n{machine()}")
    if path:
        content = {"machine": machine(), **summary, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(content, indent=2) + "\n")


def _parameters(zoo: Any, name: str) -> int:
    """How many parameters the model has, by what torchvision says of its weights."""
    weights = zoo.get_model_weights(name)
    return max(int(entry.meta["num_params"]) for entry in weights)
