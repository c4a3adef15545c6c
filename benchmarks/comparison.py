"""What tools that fold batch norms make of tiny models, each with one trap, and of whole models.

Each cell says what came out: `folded`, `partly` and `kept` give what the model gives, `WRONG` gives something else,
with the largest relative error, and `ERROR` raised. docs/comparison.md explains the tools, the cases, and each failure.
"""

# ruff: noqa: INP001, T201 - a script, which prints

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import common
import torch
from comparison_cases import CASES, Case
from comparison_measure import ROUNDING, outputs
from comparison_measure import error as error_of
from comparison_tools import TOOLS, Made, NotAskedError, Subject, apply
from torch import Tensor, nn
from tqdm import tqdm

from fxfuse.cli import failures, models

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # the exporter writes its errors in colours
DTYPES = {"float32": torch.float32, "float64": torch.float64}
ZOO = (
    "resnet18 mobilenet_v2 densenet121 googlenet shufflenet_v2_x0_5 timm:mobilenetv3_small_050 timm:tf_efficientnet_b0 "
    "timm:repvgg_a0 timm:fastvit_t8 timm:levit_128s timm:mobilevit_xxs timm:ese_vovnet19b_dw"
).split()
IN_ZOO = tuple(name for name in TOOLS if name not in {"fuse_modules", "inductor"})
PACKAGES = ("torch", "torchvision", "timm", "torchao", "onnx", "onnxscript", "onnxruntime", "onnxslim", "onnxsim")


@dataclass(frozen=True)
class Cell:
    """What one tool made of one model.

    Attributes:
        row: the case or model.
        tool: its name.
        outcome: folded, partly, kept, WRONG, ERROR, changed (the model that was passed is another one now), or `-`.
        error: the largest difference, relative to the largest number of the output; None where nothing came out.
        norms: batch norms left, and before; None where they cannot be told from other arithmetic.
        seconds: that the tool took, with what captures the model for it, but without the export to ONNX.
        detail: the first line of what was raised.
    """

    row: str
    tool: str
    outcome: str
    error: float | None = None
    norms: tuple[int, int] | None = None
    seconds: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.outcome == "WRONG":
            return f"WRONG {self.error:.0e}"
        return f"ERROR {self.detail.partition(':')[0]}" if self.outcome == "ERROR" else self.outcome

    def count(self) -> str:
        """Norms before and after, or what went wrong."""
        if self.norms is None or self.outcome == "ERROR":
            return str(self)
        left = f"{self.norms[1]} -> {self.norms[0]}"
        return left if self.outcome in {"folded", "partly", "kept"} else f"{left}, {self}"


def run_tool(name: str, row: str, subject: Subject, besides: int | None) -> Cell:
    """Give a new copy of the model to a tool, and look at what comes back.

    Args:
        name: of the tool.
        row: of the table.
        subject: the model.
        besides: multiplications and additions that have to stay; None to ask for batch norms alone.
    """
    model, x = subject.make()
    expected, before = outputs(copy.deepcopy(model), x), copy.deepcopy(model)
    try:
        with failures.quiet():
            made, seconds = apply(name, model, x, subject)
            error = error_of(expected, outputs(made.run, x))
    except NotAskedError:
        return Cell(row, name, "-")
    except Exception as raised:  # noqa: BLE001 - whatever a tool raises is what the table is about
        return Cell(row, name, "ERROR", detail=COLOUR.sub("", failures.first_line(raised)))
    norms = (made.work.norms, made.before.norms) if made.before else None
    outcome = _left(made, besides)
    if not error <= ROUNDING[x.dtype]:
        outcome = "WRONG"
    elif _changed(before, model, x):
        outcome = "changed"
    return Cell(row, name, outcome, error, norms, seconds)


def _left(made: Made, besides: int | None) -> str:
    if besides is None and made.before:
        left, before = made.work.norms, made.before.norms
    else:
        left, before = made.work.total - (besides or 0), made.before.total - (besides or 0) if made.before else 0
    if left <= 0:
        return "folded"
    return "partly" if left < before else "kept"


def _changed(before: nn.Module, after: nn.Module, x: Tensor) -> bool:
    """Whether the model that was passed has other layers now, or gives something else."""
    kinds = [{path: type(layer).__name__ for path, layer in model.named_modules()} for model in (before, after)]
    return kinds[0] != kinds[1] or error_of(outputs(before, x), outputs(after, x)) != 0


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def compare_case(case: Case, tools: Sequence[str], dtype: torch.dtype) -> list[Cell]:
    """One row of the first table."""
    subject = Subject(lambda: case.make(dtype), case.names)
    return [run_tool(tool, case.name, subject, case.besides) for tool in tools]


def compare_model(name: str, tools: Sequence[str], side: int) -> list[Cell]:
    """One row of the second table."""
    factory = models.find(name)

    def make() -> tuple[nn.Module, Tensor]:
        model = models.build(name, factory)
        models.randomize(model)
        channels, *size = models.input_size(model)
        return model, torch.randn(1, channels, *(min(s, side) if "levit" not in name else s for s in size))

    subject = Subject(make)
    return [run_tool(tool, name, subject, None) for tool in tools]


def show_cases(cells: Sequence[Cell], tools: Sequence[str]) -> None:
    """The first table, and what was raised."""
    best = {case.name: case.best for case in CASES}
    rows = _rows(cells)
    common.show([[row, best[row], *map(str, of)] for row, of in rows.items()], ["case", "possible", *tools])
    print()
    for cell in cells:
        if cell.outcome == "ERROR":
            print(f"{cell.row} / {cell.tool}: {cell.detail[:160]}")
    print()


def show_models(cells: Sequence[Cell], tools: Sequence[str]) -> None:
    """The second table: norms; and the third: seconds."""
    rows = _rows(cells)
    common.show([[row, *(cell.count() for cell in of)] for row, of in rows.items()], ["norms", *tools])
    print()
    seconds = [[row, *("" if c.seconds is None else f"{c.seconds:.1f}" for c in of)] for row, of in rows.items()]
    common.show(seconds, ["seconds", *tools])
    print()
    worst = {tool: max((c.error or 0 for c in cells if c.tool == tool), default=0) for tool in tools}
    common.show([["largest error", *(f"{worst[tool]:.0e}" for tool in tools)]], ["", *tools])


def _rows(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    return rows


def installed() -> str:
    """The versions that the tables depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES if not missing([name])}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def chosen_tools(options: Namespace) -> list[str]:
    """The tools that can run; says which packages the others lack."""
    tools = []
    for tool in options.tools or TOOLS:
        absent = missing(TOOLS[tool][1])
        if absent:
            print(f"{tool} is left out: {', '.join(absent)} not installed", file=sys.stderr)
        else:
            tools.append(tool)
    return tools


def main() -> None:
    """Run the cases, then the models."""
    parser = common.parser(__doc__)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, help="by name; without, all that are installed")
    parser.add_argument("--only", choices=["cases", "models"], help="one of the two tables")
    parser.add_argument("--case", default="", metavar="WORD", help="the cases with it in their name")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the cases; default: %(default)s")
    parser.add_argument("--side", type=int, default=128, help="of the images, in pixels; default: %(default)s")
    options = common.parse(parser)
    tools = chosen_tools(options)
    cells: list[Cell] = []
    if options.only != "models":
        picked = [case for case in CASES if options.case in case.name and not missing([case.needs or "torch"])]
        for case in tqdm(picked, file=sys.stderr):
            cells += compare_case(case, tools, DTYPES[options.dtype])
        show_cases(cells, tools)
    if options.only != "cases":
        on_models = [tool for tool in tools if tool in IN_ZOO]
        names = options.models or ZOO
        rows = [compare_model(name, on_models, options.side) for name in tqdm(names, file=sys.stderr)]
        of_models = [cell for row in rows for cell in row]
        show_models(of_models, on_models)
        cells += of_models
    print(f"\n{installed()}")
    if options.json:
        content = {"versions": installed(), "dtype": options.dtype, "cells": [asdict(cell) for cell in cells]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
