"""The documentation says what the code does: generated pages, examples, their output, commands and links."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pathlib
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import fxfuse
from fxfuse import extend
from fxfuse.cli import main as cli
from fxfuse.cli.parser import parse
from tests.project.test_recipes import need

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What the examples of a page need beside fxfuse, by a word in the code.
NEEDS = {"torch.onnx": "onnxscript", "torchvision": "torchvision", "timm:": "timm", ".onnx": "onnxruntime"}
NEEDS |= {"ultralytics": "ultralytics", "import timm": "timm", "from transformers": "transformers"}
NEEDS |= {"resnet": "torchvision", 'backend="fxfuse"': "fxfuse:backend"}

# Commands that are not run here, and why.  Those of fxfuse are parsed all the same.
NOT_RUN = {
    'pip install ".[bench]" && fxfuse bench': "minutes; .ci/run installs, and runs the benchmark in short",
    'pip install -e ".[dev]" && pytest': "it is what .ci/run does, through noxfile.py",
    'pip install ".[bench,export]"': "it installs; .ci/run does so with these extras among others",
    'pip install -e ".[compare]"': "it installs",
    'pip install -e ".[dev]"': "it installs; .ci/run does so",
    "OMP_NUM_THREADS=1 python benchmarks/mutation.py": "more than an hour",
    "OMP_NUM_THREADS=1 python benchmarks/mutation.py --share 1 --files algebra/affine": "many minutes",
    "OMP_NUM_THREADS=1 python benchmarks/mutation.py --names survivors.txt tests/rules": "minutes",
    "fxfuse refold plan.json retrained.safetensors fused.safetensors": "it needs files; the page shows it in Python",
    "pre-commit install": "it writes into the checkout",
    "python benchmarks/deployment.py": "many minutes, and four runtimes",
    "python benchmarks/comparison.py": "many minutes; tests/project/test_comparison.py runs a part",
    "python benchmarks/comparison.py --only cases --case conv_transpose --tools fxfuse inductor": "it compiles",
    "python benchmarks/comparison.py --only models resnet50 timm:repvgg_a1 --json cells.json": "minutes",
    "fxfuse bench resnet18 --batch 1 --seconds 5": "seconds of timing; .ci/run runs one like it",
    "fxfuse bench resnet50 timm:repvgg_a0 --batch 1,8 --threads 2 --dtype bfloat16": "minutes",
    "fxfuse bench mypackage.mymodule:factory --input-size 3,64,64 --json rows.json --plot rows.png": "half a minute",
}

# These take seconds, and the tests of the command line do the same with smaller models.
SLOW = {
    "fxfuse explain timm:mobilevit_s --input-size 256",
    "fxfuse export resnet18 resnet18.onnx --verify",
    "fxfuse export resnet18 resnet18.pt2 --dynamic-batch --verify",
}

# What a machine decides: the last bits of float32, and with them which of two errors is the smaller one.
ROUNDING = re.compile(r"\d\.\d\de-\d\d|\d\.\de-\d\d|-{9,}")


class Block(NamedTuple):
    """A block of a page: how it is fenced, what it says, and the text block that follows it directly."""

    fence: str
    code: str
    printed: str | None


def blocks(page: pathlib.Path) -> list[Block]:
    found = re.finditer(
        r"^```([^\n]*)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(*match.groups()) for match in found]


def need_all(code: str) -> None:
    """Skip where a package that the code names cannot be imported."""
    for package in {package for word, package in NEEDS.items() if word in code}:
        need(package)


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reasons", "operators", "commands"])
def test_generated_pages_are_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / f"{page}.md").read_text() == getattr(generator(), page)()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_of_a_kind_that_is_checked(page: pathlib.Path) -> None:
    kinds = {block.fence.partition(" recipe")[0] for block in blocks(page)}  # test_recipes runs "python recipe"
    assert kinds <= {"python", ""}


@pytest.mark.usefixtures("restored_operators")
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b.fence == "python" for b in blocks(p))], ids=lambda p: p.name
)
def test_every_example_runs_and_prints_what_the_page_says(
    page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    scope: dict[str, Any] = {"__name__": "example"}
    for block in (block for block in blocks(page) if block.fence == "python"):
        need_all(block.code)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.code, str(page), "exec"), scope)  # noqa: S102 - our own documentation
        if block.printed is not None:
            assert comparable(out.getvalue()) == comparable(block.printed)


NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks").glob("*.py")])


# What measures in the notebooks is what measures in the command; no page shows it as something to import.
NOTEBOOKS.remove(ROOT / "notebooks" / "measuring.py")


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_pages_import_from_the_stable_names_alone(page: pathlib.Path) -> None:
    assert set(re.findall(r"(?:from|import) (fxfuse[\w.]*)", page.read_text())) <= {"fxfuse", "fxfuse.extend"}


def comparable(text: str) -> str:
    """A text without spaces at the ends of lines, and without what a machine decides."""
    return "\n".join(ROUNDING.sub("#", line).rstrip() for line in text.strip("\n").splitlines())


def commands() -> Iterator[Any]:
    """Every line that begins with a dollar, with the lines below it."""
    for page in PAGES:
        for block in blocks(page):
            for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:] if block.fence == "" else ():
                line, _, output = part.partition("\n")
                command = line.partition("  #")[0].strip()
                marks = [pytest.mark.slow] if command in SLOW else []
                yield pytest.param(command, output, id=f"{page.name}: {command}", marks=marks)


@pytest.mark.parametrize(("command", "output"), list(commands()))
def test_every_command_runs_or_says_why_not(
    command: str, output: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del folder
    program, *arguments = shlex.split(command)
    if command in NOT_RUN:
        if program == "fxfuse":
            assert parse(arguments).command
        return
    assert program == "fxfuse"
    need_all(command)
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    if output.strip():
        assert comparable(printed) == comparable(output)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A current directory with the package of a user's own that the pages speak of."""
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    model = "from torch import nn\n\ndef factory():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n"
    (package / "mymodule.py").write_text(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_is_not_run_or_slow_is_on_a_page() -> None:
    assert NOT_RUN.keys() | SLOW <= {parameter.values[0] for parameter in commands()}


def test_the_readme_is_short_with_the_lines_that_tools_read() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 90
    assert sum(line.startswith('$ pip install ".[bench]" && fxfuse bench ') for line in lines) == 1
    assert sum(line.startswith('$ pip install -e ".[dev]" && pytest ') for line in lines) == 1
    code = re.findall(r"^```\w*\n(.*?)^```$", "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
    assert max(map(len, "".join(code).splitlines())) <= 90, "wider than a code host shows"


def test_the_site_lists_every_page_and_the_reference_every_public_name() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f": {p.name}\n" not in listed] == []
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert [n for n in fxfuse.__all__ if n != "__version__" and f"\n::: fxfuse.{n}\n" not in reference] == []
    assert [n for n in extend.__all__ if f'"{n}"' not in reference and f"\n::: fxfuse.{n}\n" not in reference] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_and_headings(page: pathlib.Path) -> None:
    text = re.sub(r"<!--.*?-->|^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link, heading in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not heading or heading in headings(target), f"{link}#{heading}"


def headings(page: pathlib.Path) -> set[str]:
    """The anchors of a page, as GitHub makes them, and the names that mkdocstrings documents."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return set(re.findall(r"^::: (.*)$", page.read_text(), re.MULTILINE)) | {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    }
