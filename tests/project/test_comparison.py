"""The comparison with other tools: the script runs, and fxfuse is never wrong, nor misses what its cases allow."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # they are scripts, which import each other by name
comparison: Any = importlib.import_module("comparison")
cases: Any = importlib.import_module("comparison_cases")

NAMES = [case.name for case in cases.CASES]
# Where less is done than the algebra allows; docs/limits.md and docs/comparison.md say why.
KEPT = {
    "hook that changes conv's output",
    "hook that changes norm's output",
    "conv, pool, flatten, norm 1d",
}


def run(name: str, tools: Sequence[str] = ("fxfuse",), dtype: torch.dtype = torch.float64) -> list[Any]:
    case = cases.CASES[NAMES.index(name)]
    if case.needs:
        pytest.importorskip(case.needs)
    cells: list[Any] = comparison.compare_case(case, tools, dtype)
    return cells


@pytest.mark.parametrize("name", NAMES)
def test_fxfuse_does_what_is_possible_and_nothing_wrong(name: str) -> None:
    (cell,) = run(name)
    best = cases.CASES[NAMES.index(name)].best
    assert cell.outcome == ("kept" if name in KEPT else best), cell.detail
    assert cell.norms is not None


def test_what_is_kept_is_a_case() -> None:
    assert set(NAMES) >= KEPT
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "tool", "outcome"),
    [
        ("conv, norm", "torch.fx", "folded"),
        ("conv, norm", "children", "folded"),
        ("conv, norm", "jit.freeze", "folded"),
        ("conv, relu, norm", "torch.fx", "kept"),
        ("conv, relu, norm", "children", "WRONG"),
        ("registered in another order", "children", "WRONG"),
        ("concatenation, norm", "children", "ERROR"),
        ("block of RepVGG", "torch.fx", "partly"),
        ("conv, avg_pool, norm", "fuse_modules", "-"),
    ],
)
def test_each_outcome_is_told_from_the_others(name: str, tool: str, outcome: str) -> None:
    (cell,) = run(name, [tool])
    assert cell.outcome == outcome
    assert (cell.error is None) == (outcome in {"ERROR", "-"})
    assert str(cell).startswith(outcome)


@pytest.mark.parametrize("tool", ["torch.onnx", "onnxruntime", "onnxslim", "onnxsim", "pt2e", "timm"])
def test_optional_tools_keep_what_they_compute(tool: str) -> None:
    for package in comparison.TOOLS[tool][1]:
        pytest.importorskip(package)
    (cell,) = run("conv, norm", [tool], torch.float32)
    assert cell.outcome == ("kept" if tool == "timm" else "folded")
    assert cell.norms == ((1, 1) if tool == "timm" else (0, 1))


def test_a_changed_argument_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: Any, _x: Any, _subject: Any) -> Any:
        model[1].weight.data.mul_(2)
        return cases.CASES[0].make(torch.float64)[0]

    monkeypatch.setitem(comparison.TOOLS, "careless", (careless, ()))
    (cell,) = run("conv, norm", ["careless"])
    assert cell.outcome == "changed"


def test_a_tool_without_its_package_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(comparison.TOOLS, "absent", (None, ("no_such_package",)))
    options = type("Options", (), {"tools": ["absent", "fxfuse"]})
    assert comparison.chosen_tools(options) == ["fxfuse"]
    assert "absent is left out: no_such_package not installed" in capsys.readouterr().err


def test_the_script_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    command = [sys.executable, str(BENCHMARKS / "comparison.py"), "--only", "cases", "--case", "in training mode"]
    command += ["--tools", "fxfuse", "torch.fx", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = " ".join(done.stdout.split())
    assert "| one norm of two in training mode | partly | partly | ERROR AssertionError |" in printed
    assert "one norm of two in training mode / torch.fx: AssertionError: Fusion only for eval!" in printed
    outcomes = [cell["outcome"] for cell in json.loads(file.read_text())["cells"]]
    assert outcomes == ["partly", "ERROR"]


def test_models_are_compared_by_their_norms() -> None:
    pytest.importorskip("torchvision")
    fxfuse, children = comparison.compare_model("resnet18", ["fxfuse", "children"], 32)
    assert [fxfuse.count(), children.count()] == ["20 -> 0", "20 -> 0"]
    assert fxfuse.error < 1e-5
