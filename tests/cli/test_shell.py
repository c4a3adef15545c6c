"""The command line in a shell: imports, pipes, interruptions, lists of numbers, colours and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fxfuse
from fxfuse.cli import export_formats, settings, terminal
from fxfuse.cli.main import main
from fxfuse.cli.parser import joined, parse
from tests.cli.test_main import QUICK, folder, sentence

__all__ = ["folder"]  # a fixture that every test here uses too

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fxfuse.__file__).parents[1])}


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    "argument", ["--version", "--help", "bench --help", "bench --seconds soon", "export --nonsense"]
)
def test_what_needs_no_torch_does_not_import_it(argument: str) -> None:
    code = f"""
import sys
from fxfuse.cli.main import main
try:
    main({argument.split()!r})
except SystemExit:
    print("torch" in sys.modules, "tabulate" in sys.modules)
"""
    assert python(code).stdout.endswith("False False\n")


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m fxfuse explain own_models:small | head -c 1"
    done = subprocess.run(command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stdout == "o"
    assert "Error" not in done.stderr  # torch may warn that there is no numpy


def test_an_interruption_while_torch_is_imported_is_quiet() -> None:
    code = """
import sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from fxfuse.cli.main import main
sys.exit(main(["explain", "resnet18"]))
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("bench --batch 1 8 resnet50", "bench --batch 1,8 resnet50"),
        ("bench --batch 1,8 resnet50", "bench --batch 1,8 resnet50"),
        ("bench resnet50 --batch 1 --seconds 5", "bench resnet50 --batch 1 --seconds 5"),
        ("explain --input-size 3 64 64 resnet50", "explain --input-size 3,64,64 resnet50"),
        ("explain --input-size", "explain --input-size"),
        ("bench --batch=1 8 resnet50", "bench --batch=1,8 resnet50"),
        ("bench --batch 1, 8 resnet50", "bench --batch 1,8 resnet50"),
        ("export m o.onnx --dynamic-axes 0=batch 2=height", "export m o.onnx --dynamic-axes 0=batch,2=height"),
        ("export --dynamic-axes=0=batch 2=height m o.onnx", "export --dynamic-axes=0=batch,2=height m o.onnx"),
    ],
)
def test_lists_of_numbers_end_where_no_number_follows(given: str, read: str) -> None:
    assert joined(given.split()) == read.split()


def test_models_batches_and_seconds_in_any_order() -> None:
    arguments = "bench --batch 1 8 own:a own:b --seconds 0.5 --input-size 3 8 8"
    options = parse(arguments.split())
    assert (options.models, options.batches) == (["own:a", "own:b"], [1, 8])
    assert (options.seconds, options.input_size) == (0.5, (3, 8, 8))
    assert parse("explain a --input-size 64".split()).input_size == (3, 64, 64)
    assert parse("explain a --input-size 3x64x32".split()).input_size == (3, 64, 32)
    spread = parse("bench own:a --batch 1 --repeats 2 own:b --batch 8, --seconds 1e-1 own:c".split())
    assert (spread.models, spread.batches, spread.seconds) == (["own:a", "own:b", "own:c"], [1, 8], 0.1)
    assert parse(["bench"]).models == []


def test_a_batch_size_that_is_given_twice_is_measured_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "own_models:small", *QUICK, "--batch", "1", "2"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("explain a b", "fxfuse explain: unrecognized arguments: b; see fxfuse explain --help"),
        ("bench --bat 1", "fxfuse bench: unrecognized arguments: --bat"),
        ("explain a --json report.json", "fxfuse explain: unrecognized arguments: report.json"),
        ("explain own_models.py", '"own_models.py" is a file, and this takes the name of a model'),
        ("bench missing.onnx", '"missing.onnx" is a file, and this takes the name of a model'),
        ("explain own_models:small --input-size 1 3 8 8", "--input-size sets another shape: that of one sample"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str], arguments: str, expected: str) -> None:
    assert expected in sentence(capsys, *arguments.split())


def test_a_model_of_timm_is_named_where_torchvision_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    assert '(did you mean "timm:mobileone_s0"?)' in sentence(capsys, "bench", "mobileone_s0")


@pytest.mark.parametrize("seconds", ["0", "0.0", "-1", "soon", "inf", "nan"])
def test_seconds_are_over_zero(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert f'"{seconds}" is not a number over zero' in sentence(capsys, "bench", f"--seconds={seconds}")


def test_formats_are_those_that_can_be_written() -> None:
    assert set(settings.EXPORT_FORMATS) == set(export_formats.FORMATS)


def test_colours_on_a_terminal_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = "operation  result\n1          stays     it stays  the same\noutput  DIFFERS"
    terminal.show(table)
    assert capsys.readouterr().out == f"{table}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal.show(table)
    coloured = capsys.readouterr().out
    assert "\033[33mstays\033[0m     it stays  the same" in coloured
    assert "\033[31mDIFFERS\033[0m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show(table)
    assert "\033" not in capsys.readouterr().out


def test_a_table_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert terminal.width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["explain", "own_models:small"]) == 0
    table = capsys.readouterr().out.split("\n\n")[0]
    assert 80 < max(map(len, table.splitlines())) <= 100


def test_the_rows_of_bench_fit_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["bench", "own_models:small", *QUICK, "--batch", "1,2"]) == 0
    times, others = capsys.readouterr().out.split("\n\n")
    assert [line.split()[1] for line in times.splitlines()[2:]] == ["1", "2"]
    assert len(others.splitlines()) == 3, "what is the same for each batch size is told once"
    assert max(map(len, times.splitlines())) <= 80


def test_the_bar_never_has_less_than_nothing_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "own_models:small", *QUICK[:2], "--repeats", "7", "--input-size", "8"]) == 0
    assert "-" not in "".join(capsys.readouterr().err.split("left"))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    written = capsys.readouterr().out
    assert "--fail-on-left" in written
    assert (":FILE:_files" if shell == "zsh" else "html_COMPGEN=_shtab_compgen_files") in written


def test_completion_names_the_extra_that_it_takes(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert 'shtab is not installed; it comes with the extra "bench"' in sentence(capsys, "--print-completion", "bash")
