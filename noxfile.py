"""The commands that a change must pass: ``nox --list`` names them, ``nox -s tests`` runs one of them.

``.ci/run`` runs all of them from a clean checkout, and ``.github/workflows/ci.yml`` on each version of Python.

In an environment that has the "dev" extra, ``nox --no-venv`` uses it as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
OLDEST_TORCH = "2.13.0"
DIST = Path(os.environ.get("DIST", "dist")).absolute()

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


def install_dev(session: nox.Session) -> None:
    """Install the package with the "dev" extra, unless the environment is the caller's own."""
    if session.venv_backend != "none":
        session.install("-e", ".[dev]")


@nox.session
def lint(session: nox.Session) -> None:
    """The hooks of pre-commit but mypy: ruff, import-linter, codespell, and paths of a machine."""
    install_dev(session)
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", env={"SKIP": "mypy"})


@nox.session
def types(session: nox.Session) -> None:
    """The types: mypy, as a hook of pre-commit."""
    install_dev(session)
    session.run("pre-commit", "run", "--all-files", "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests that are not slow."""
    install_dev(session)
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The slow tests."""
    install_dev(session)
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """A short run of the benchmark."""
    install_dev(session)
    session.run("fxfuse", "bench", "resnet18", "--batch", "1", "--repeats", "3")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in ``site``; a warning is an error."""
    install_dev(session)
    session.run("mkdocs", "build", "--strict", "--site-dir", os.environ.get("SITE", "site"), *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel and the source distribution, in ``dist`` or the folder that DIST names."""
    if session.venv_backend != "none":
        session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(DIST), ".")
    session.run("twine", "check", "--strict", *map(str, sorted(DIST.iterdir())))


@nox.session
def oldest(session: nox.Session) -> None:
    """The tests with the oldest torch and no other packages: those of the source distribution, on the wheel."""
    built = [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]
    if len(built) != 2:
        session.error(f"{DIST} must hold one wheel and one source distribution, not {len(built)} files: nox -s build")
    wheel, source = built
    session.install(f"torch=={OLDEST_TORCH}")
    session.install(str(wheel), "pytest", "pytest-xdist", "hypothesis", "tqdm")
    session.run("python", "-c", "import torch; print('torch', torch.__version__)")
    folder = session.create_tmp()
    session.run("tar", "-xf", str(source), "-C", folder, "--strip-components=1", external=True)
    session.run("rm", "-r", f"{folder}/fxfuse", external=True)  # so that the tests import the wheel
    session.chdir(folder)
    session.run("fxfuse", "--version")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def byte_code(session: nox.Session) -> None:
    """The tests of what is read of byte code, without torch, on each Python that is installed."""
    session.install("pytest")
    plugin = ("-o", "addopts=", "--noconftest", "-p", "tests.support.without_torch")
    tests = [f"tests/modules/test_{name}.py" for name in ("code", "elements", "receivers")]
    session.run("python", "-m", "pytest", *plugin, "tests/capture/test_frames.py", *tests, *session.posargs)
