"""What is released can be installed, and does what the README says."""

from __future__ import annotations

import email
import os
import re
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import fxfuse

ROOT = Path(__file__).parents[2]
READ_BY_TESTS = ("tests", "docs", "benchmarks", ".ci")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution, built as they are for a release."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return folder


def wheel(built: Path) -> Path:
    (found,) = built.glob("fxfuse-*.whl")
    return found


def test_the_wheel_holds_the_package_alone(built: Path) -> None:
    package = {f"fxfuse/{path.relative_to(ROOT / 'fxfuse')}" for path in (ROOT / "fxfuse").rglob("*.py")}
    with zipfile.ZipFile(wheel(built)) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {*package, "fxfuse/py.typed", "fxfuse/cli/html_report.html"}


def test_the_version_is_the_one_of_the_package(built: Path) -> None:
    with zipfile.ZipFile(wheel(built)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == fxfuse.__version__
    assert metadata["License-Expression"] == "MIT"


def test_the_source_distribution_holds_what_the_tests_read(built: Path) -> None:
    files = [path for folder in READ_BY_TESTS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    read = {str(path.relative_to(ROOT)) for path in files if path.is_file()}
    (source,) = built.glob("fxfuse-*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert read - names == set()
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= names


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel, which borrows torch from the one of the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    (packages,) = folder.rglob("site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    options = ("--no-deps", "--no-index", "--ignore-installed")
    output(programs / "python", "-m", "pip", "install", *options, wheel(built), cwd=folder)
    return programs


def output(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing but the wheel
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_first_example_of_the_readme(installed: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code, printed = re.findall(r"^```(?:python|text)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[:2]
    where = "import fxfuse\nprint(fxfuse.__file__)\n"
    path, _, table = output(installed / "python", "-c", where + code, cwd=tmp_path).partition("\n")
    assert Path(path).is_relative_to(installed.parent)
    assert _words(table) == _words(printed)


def _words(table: str) -> list[str]:
    """A table without its rules, of which the length hangs on the version of tabulate."""
    return [word for word in table.split() if set(word) != {"-"}]


def test_the_command(installed: Path, tmp_path: Path) -> None:
    assert output(installed / "fxfuse", "--version", cwd=tmp_path) == f"fxfuse {fxfuse.__version__}\n"
    assert "bench" in output(installed / "fxfuse", "--help", cwd=tmp_path)


def test_the_backend_is_found_by_its_name(installed: Path, tmp_path: Path) -> None:
    code = "import torch; print('fxfuse' in torch._dynamo.list_backends())"
    assert output(installed / "python", "-c", code, cwd=tmp_path).strip() == "True"
