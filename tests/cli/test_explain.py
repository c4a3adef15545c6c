"""``fxfuse explain``: norms like those of bench and export, inputs of the model's dtype, exit codes, other ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxfuse
from fxfuse import Report
from fxfuse.cli import explain, models
from fxfuse.cli.html_report import Explained
from fxfuse.cli.main import main
from fxfuse.cli.settings import Explain
from tests.cli.html_pages import data_of
from tests.cli.test_main import QUICK, folder
from tests.support.helpers import Model

__all__ = ["folder"]  # a fixture that every test here uses too


def test_it_judges_the_norms_that_bench_and_export_have(capsys: pytest.CaptureFixture[str]) -> None:
    """With fresh norms, the second one of this model would pass the activation."""
    assert main(["explain", "own_models:small", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["norms_left"]) == (False, 1)
    assert explain.RANDOM in report["notes"]
    assert main(["bench", "own_models:small", *QUICK]) == 0
    assert "2 -> 1" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "status"), [("small", 3), ("half", 0)])
def test_norms_that_are_left_have_an_exit_code_of_their_own(model: str, status: int) -> None:
    assert main(["explain", f"own_models:{model}", "--fail-on-left"]) == status
    assert main(["explain", f"own_models:{model}"]) == 0


def test_the_input_has_the_dtype_of_the_weights_and_is_no_constant() -> None:
    assert main(["explain", "own_models:half", "--input-size", "8"]) == 0
    sample = models.sample(nn.Linear(2, 2).half(), (1, 4))
    assert sample.dtype == torch.float16
    assert sample.std() > 0


def test_a_saved_program(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = models.prepared("", models.find("own_models:small"))
    torch.export.save(torch.export.export(model, (torch.randn(2, 3, 8, 8),)), "in.pt2")
    assert main(["explain", "in.pt2"]) == 0
    printed = capsys.readouterr().out
    assert "1 folded, 1 norm left" in printed
    assert "2 -> 1 norms" in printed, "it runs on the inputs that are saved with it"
    assert main(["explain", "in.pt2", "--input-size", "8"]) == 2
    assert main(["explain", "missing.pt2"]) == 2
    assert '"missing.pt2" is not a file' in capsys.readouterr().err


def test_a_known_model_is_run_on_an_input_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    seen: list[Any] = []

    def remember(model: nn.Module, example: Any) -> Explained:
        seen.append(example)
        return Explained(type(model).__name__, Report(), None)  # type: ignore[arg-type] # no page is made

    monkeypatch.setattr("fxfuse.cli.html_report.Explained.of", remember)
    explain.explain(Explain("resnet18"))
    assert seen[0].shape == (1, 3, 224, 224)
    report = explain.explain(Explain("r3d_18"))  # videos have an axis more
    assert seen[1] is None
    assert any(note.startswith("It does not run on 1x3x224x224 (") for note in report.notes)


def test_another_way_of_calling_is_told_with_its_number_if_it_helps() -> None:
    class Twice(nn.Module):
        """Called in two ways, so that one class cannot hold the fold."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).relu() + self.norm(self.conv(x))

    model = Twice().eval()
    example = torch.randn(1, 3, 4, 4)
    module = fxfuse.explain(model, example, structure="module")
    notes = list(explain._better(model, example, module))
    assert len(module.norms_left) == 1
    assert "Another way folds more: structure='graph' leaves 0 norms instead of 1." in notes
    graph = fxfuse.explain(model, example, structure="graph")
    assert graph.ok
    assert not list(explain._better(model, example, graph))


def test_the_page_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "own_models:small", "--input-size", "8", "--html", "page.html"]) == 0
    data = data_of(Path("page.html").read_text(encoding="utf-8"))
    assert explain.RANDOM in data["notes"]
    assert data["size"] in capsys.readouterr().out
    assert "2 -> 1 norms" in data["size"]


def test_another_way_that_folds_more_constants_is_told() -> None:
    class FirstToken(Model):
        """Without sizes, nobody knows how many axes the norm of the tokens has."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(x)[:, 0])

    model = FirstToken(norm=nn.LayerNorm(4), head=nn.Linear(4, 2)).eval()
    models.randomize(model)
    with torch.no_grad():
        model.norm.bias.add_(1)
    example = torch.randn(1, 3, 4)
    (note,) = explain._better(model, example, fxfuse.explain(model, example))
    assert note == (
        "Another way folds more: fusing the exported program leaves the constants of 0 operations instead of 1."
    )


def test_an_input_is_advised_where_it_folds_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "own_models:Branch"]) == 0
    assert "--input-size 3,224,224 leaves 0 norms instead of 1." in capsys.readouterr().out
    assert main(["explain", "own_models:Branch", "--input-size", "8"]) == 0
    assert "Another way" not in capsys.readouterr().out
