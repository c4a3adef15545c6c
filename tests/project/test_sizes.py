"""Files are short enough to read, and folders small enough to know; ruff says so of functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import fxfuse

FOLDERS = (Path(fxfuse.__file__).parent, Path(__file__).parents[1])
FILES = [path for folder in FOLDERS for path in folder.rglob("*.py")]


def test_files_have_at_most_250_lines() -> None:
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in FILES}
    assert {name: count for name, count in lines.items() if count > 250} == {}


def test_folders_have_at_most_24_files() -> None:
    assert {str(folder): count for folder, count in Counter(path.parent for path in FILES).items() if count > 24} == {}
