"""The command line: what it prints, and that every error is one sentence and exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fxfuse
from fxfuse.cli.main import main

OWN_MODELS = """
print("imported")
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))

def number():
    return 7

def broken():
    raise ValueError("no weights today\\nand a second line")

class Zoo:
    small = staticmethod(small)

def half():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).half()

def stops():
    raise KeyboardInterrupt

def talks():
    print("loading")
    return small()

made = small()

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.shape[0] else x

class FailsToRun(nn.Module):
    def forward(self, x):
        return x.reshape(7)
"""
QUICK = ["--batch", "1", "--repeats", "1", "--input-size", "8"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a module of the user's own in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    return tmp_path


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that must fail."""
    try:
        status: object = main(arguments)
    except SystemExit as leave:
        status = leave.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fxfuse")]
    assert status == 2
    assert len(lines) == 1
    return lines[0]


def test_bench_prints_a_table_and_writes_its_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "own_models:small", "own_models:Zoo.small", *QUICK, "--json", "rows.json"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[2:]] == [
        "own_models:small",
        "own_models:Zoo.small",
    ]
    assert "2 -> 1" in captured.out
    assert "own_models:small" in captured.err, "the progress bar"
    saved = json.loads((folder / "rows.json").read_text())
    assert saved["dtype"] == "float32"
    assert [row["norms_after"] for row in saved["rows"]] == [1, 1]


@pytest.mark.parametrize(("fails", "status"), [("own_models:FailsToRun", 2), ("own_models:stops", 130)])
def test_bench_writes_what_it_measured_before_an_error(folder: Path, fails: str, status: int) -> None:
    pytest.importorskip("matplotlib")
    files = ["--json", "rows.json", "--plot", "chart.png"]
    assert main(["bench", "own_models:small", fails, *QUICK, *files]) == status
    assert [row["model"] for row in json.loads((folder / "rows.json").read_text())["rows"]] == ["own_models:small"]
    assert (folder / "chart.png").stat().st_size > 1000


def test_bench_prints_the_rows_before_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "own_models:small", "own_models:FailsToRun", *QUICK]) == 2
    captured = capsys.readouterr()
    assert "own_models:small" in captured.out
    assert 'fxfuse: "own_models:FailsToRun" does not run on float32 of shape (1, 3, 8, 8)' in captured.err


def test_bench_draws(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["bench", "own_models:small", *QUICK, "--plot", "chart.png"]) == 0
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_explain_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "own_models:small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("BatchNorm2d" in line and line.split()[0] == "1" for line in lines)
    assert any("BatchNorm2d" in line and line.split()[0] == "3" for line in lines)


def test_what_a_function_prints_is_not_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "own_models:talks", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["norms_left"] == 1
    assert "imported" in captured.err
    assert "loading" in captured.err


def test_a_model_that_is_made_already() -> None:
    assert main(["explain", "own_models:made", "--fail-on-left"]) == 3


def test_lowering(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "own_models:small", *QUICK, "--lower"]) == 0
    assert "lowered" in capsys.readouterr().out
    assert main(["explain", "own_models:small", "--lower"]) == 0
    assert "kernels: 2, operations taken in: 1, layers left: 0" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [[], ["--input-size", "8"], ["--input-size", "3", "8", "6"]])
def test_explain_for_machines(capsys: pytest.CaptureFixture[str], extra: list[str]) -> None:
    assert main(["explain", "own_models:small", "--json", *extra]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["explain", "own_models:number"],
            '"own_models:number" must return a torch.nn.Module, and returned int',
        ),
        (
            ["explain", "own_models:broken"],
            'the model "own_models:broken" cannot be built: ValueError: no weights',
        ),
        (["explain", "own_models:nothing"], '"own_models:nothing" cannot be imported: AttributeError'),
        (["explain", "own_models:OWN"], '"own_models:OWN" cannot be imported'),
        (["explain", "own_models:torch.__version__"], "is neither a function that returns a model nor a model"),
        (["explain", "not_there:small"], '"not_there:small" cannot be imported: ModuleNotFoundError'),
        (["explain", "own_models:"], '"own_models:" cannot be imported'),
        (["explain", "own_models:small", "--input-size", "5", "8", "8"], "does not run on float32 of shape (1, 5"),
        (["bench", "own_models:small", "--dtype", "int8"], "int8"),
        (
            ["bench", "own_models:small", "--device", "abacus"],
            '"abacus" is no device that torch finds here; it finds cpu',
        ),
        (["bench", "own_models:small", "--batch", "0"], '"0" must be whole numbers over zero'),
        (
            ["bench", "own_models:small", "--json", "missing/rows.json"],
            '"missing/rows.json" cannot be written',
        ),
        (
            ["bench", "own_models:small", "--plot", "chart.txt"],
            '"chart.txt" must end in .png or .svg or .pdf',
        ),
        (
            ["bench", "own_models:small", "--input-size", "5", "8", "8"],
            "does not run on float32 of shape (1, 5",
        ),
        ([], "COMMAND"),
        (["improve"], "improve"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_sentences(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert expected in sentence(capsys, *arguments)


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("tqdm", ["bench", "own_models:small"]),
        ("matplotlib", ["bench", "own_models:small", "--plot", "chart.png"]),
        ("torchvision", ["explain", "resnet18"]),
        ("timm", ["explain", "timm:resnet18"]),
    ],
)
def test_a_missing_package_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str, arguments: list[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    expected = f'{package} is not installed; it comes with the extra "bench": pip install "fxfuse[bench]"'
    assert expected in sentence(capsys, *arguments)


def test_an_unknown_model_of_torchvision(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    assert 'torchvision has no model "resnet51" (did you mean "resnet' in sentence(capsys, "bench", "resnet51")


def test_an_unknown_model_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert 'timm has no model "repvgg_a00"; did you mean' in sentence(capsys, "explain", "timm:repvgg_a00")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"fxfuse {fxfuse.__version__}\n"


def test_python_m_explains_with_torch_and_tabulate_alone(folder: Path) -> None:
    extras = ["torchvision", "timm", "tqdm", "matplotlib"]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({extras}))\n"
    start = f"{blocked}import runpy; runpy.run_module('fxfuse', run_name='__main__', alter_sys=True)"
    source = str(Path(fxfuse.__file__).parents[1])
    command = [sys.executable, "-c", start, "explain", "own_models:small"]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": source}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "BatchNorm2d" in done.stdout
