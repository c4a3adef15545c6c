"""Every notebook runs as it is, and what is stored in it can be read without running it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "notebooks"
# What each needs beside torch and matplotlib.
NEEDS = {
    "01_tutorial": ["torchvision"],
    "02_how_it_works": [],
    "03_reparameterize": ["timm"],
    "04_compiler": ["onnx", "onnxscript"],
}
HELPERS = ("drawing.py", "measuring.py")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
OF_ONE_RUN = re.compile(
    r"/(?:home|root|work|tmp|mnt|Users|usr|opt)/|0x[0-9a-f]{6}|\.py:\d|Traceback|Warning\b|Error\b|\x1b|widget"
)
KILOBYTE = 1000

every = pytest.mark.parametrize("name", NEEDS)


def stored(name: str) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(notebook: Any) -> dict[str, list[str]]:
    """For each code cell what it gives: text, images, results."""
    given = {
        cell["id"]: [[o["output_type"], *o.get("data", {})] for o in cell["outputs"]] for cell in code_cells(notebook)
    }
    return {name: sorted(itertools.chain(*outputs)) for name, outputs in given.items()}


def texts(output: Any) -> list[str]:
    """All that a reader sees of an output as text."""
    parts = [output.get("text", []), *(v for k, v in output.get("data", {}).items() if not k.startswith("image/"))]
    return ["".join(part) for part in parts]


def runner() -> ModuleType:
    """The script that refreshes the notebooks."""
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_these_are_all_notebooks() -> None:
    assert sorted(NEEDS) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    links = re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text())
    assert links == list(NEEDS)


@pytest.mark.slow  # each starts a process, and runs or compiles networks there
@every
def test_a_notebook_runs_with_warnings_as_errors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("nbclient", "nbformat", "ipykernel", "PIL", "matplotlib", *NEEDS[name]):
        pytest.importorskip(package)
    nbformat: Any = sys.modules["nbformat"]
    if name == "04_compiler" and not _backend_is_installed():
        pytest.skip("fxfuse is not installed, so that torch cannot find its backend by its name")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    for helper in HELPERS:
        shutil.copy(FOLDER / helper, tmp_path)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    runner().execute(notebook, tmp_path)  # an assertion that fails in a cell is an error here
    assert kinds(notebook) == kinds(stored(name))  # each cell still gives what is stored, an image or a text
    assert not [path for path in tmp_path.iterdir() if path.name not in (*HELPERS, "__pycache__")]


def _backend_is_installed() -> bool:
    return bool(importlib.metadata.entry_points(group="torch_dynamo_backends", name="fxfuse"))


@every
def test_what_a_cell_prints_or_draws_is_stored(name: str) -> None:
    cells = code_cells(stored(name))
    shows = [cell for cell in cells if re.search(r"^ *(print|draw|plt\.show)\(", "".join(cell["source"]), re.MULTILINE)]
    assert len(shows) > 5
    assert [cell["id"] for cell in shows if not cell["outputs"]] == []
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@every
def test_no_output_holds_an_error_or_a_trace_of_the_machine(name: str) -> None:
    outputs = [output for cell in code_cells(stored(name)) for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} <= {"stdout"}
    assert [text for output in outputs for text in texts(output) if OF_ONE_RUN.search(text)] == []
    assert {kind for output in outputs for kind in output.get("data", {})} <= {"text/plain", "image/png"}


@every
def test_a_notebook_is_small_and_its_metadata_says_nothing_of_a_machine(name: str) -> None:
    notebook = stored(name)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300 * KILOBYTE
    images = [o["data"]["image/png"] for cell in code_cells(notebook) for o in cell["outputs"] if "data" in o]
    assert max(len("".join(image)) * 3 // 4 for image in images) < 60 * KILOBYTE
    assert notebook["metadata"] == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    assert [cell["id"] for cell in notebook["cells"] if cell["metadata"]] == []


@every
def test_a_notebook_begins_with_what_one_learns(name: str) -> None:
    first = "".join(stored(name)["cells"][0]["source"])
    assert first.startswith("# ")
    assert "**You learn**" in first
    assert "**It takes**" in first


@every
def test_links_lead_somewhere(name: str) -> None:
    prose = "".join("".join(c["source"]) for c in stored(name)["cells"] if c["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)#]+)", prose)
    assert targets
    assert [target for target in targets if not (FOLDER / target).exists()] == []
