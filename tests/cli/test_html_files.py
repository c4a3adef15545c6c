"""The page as a file: from Python and from the command line, complete or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx

from fxfuse import FuseError, explain
from fxfuse.cli import html_report
from fxfuse.cli.main import main
from tests.cli.html_pages import branches, chain, data_of, rows_of, states
from tests.support.helpers import unchanged

if TYPE_CHECKING:
    from pathlib import Path


def test_writing_gives_the_report_and_leaves_the_model(tmp_path: Path) -> None:
    model = chain()
    with unchanged(model):
        report = html_report.write(tmp_path / "page.html", model)
    assert str(report) == str(explain(model))
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html_report.page(model)


def test_a_graph_is_not_fused_in_place() -> None:
    graph_module = fx.symbolic_trace(chain())
    with unchanged(graph_module):
        html_report.page(graph_module, inplace=True)


def test_options_are_those_of_fx_fuse() -> None:
    assert ("norm", "folded") in states(rows_of(branches(), rules=["fold_upstream"]))
    assert ("point", "kept") in states(rows_of(branches(), rules=["fold_upstream"]))
    with pytest.raises(FuseError, match="fold_upstreams"):
        html_report.page(branches(), rules=["fold_upstreams"])
    with pytest.raises(TypeError, match="structur"):
        html_report.page(branches(), structur="graph")  # type: ignore[call-arg] # the point


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(FuseError, match="raises on the example inputs"):
        html_report.write(tmp_path / "page.html", chain(), torch.randn(2, 7, 8, 8))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FuseError, match="cannot be written"):
        html_report.write(tmp_path / "missing" / "page.html", chain())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "tests.cli.html_pages:chain", "--html", "page.html"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{explain(chain())}\n\nwritten to page.html\n"
    assert data_of((tmp_path / "page.html").read_text(encoding="utf-8"))["title"] == "tests.cli.html_pages:chain"


def test_the_command_for_machines_prints_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "tests.cli.html_pages:chain", "--json", "--html", str(tmp_path / "page.html")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(explain(chain()).to_dict()))
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("page.txt", '"page.txt" must end in .html or .htm'),
        ("missing/page.html", '"missing/page.html" cannot be written: its folder does not exist'),
        ("folder.html", '"folder.html" cannot be written: it is a folder itself'),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "tests.cli.html_pages:never", "--html", target])
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_a_folder_that_does_not_let_you_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # noqa: ARG005 - root may write everywhere
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "tests.cli.html_pages:never", "--html", str(tmp_path / "page.html")])
    assert "its folder does not exist, or does not let you write" in capsys.readouterr().err
