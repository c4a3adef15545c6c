"""Check that files and functions are short enough to read, and that no path of a machine is in the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_LINES = 250
FUNCTION_LINES = 40
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:home|root|work|tmp|Users|mnt)/\w")


def files() -> list[Path]:
    """All files of the checkout that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [path for path in map(Path, listed.splitlines()) if path.is_file()]


def too_long(path: Path, text: str) -> Iterator[str]:
    """Complaints about a Python file, and about its functions."""
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines; split it, {FILE_LINES} are the limit"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
            if lines > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES} are the limit"


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How long the docstring is; what it takes to document arguments makes no function hard to read."""
    first = function.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1 if ast.get_docstring(function) else 0


def machine_paths(path: Path, text: str) -> Iterator[str]:
    """Complaints about absolute paths that exist on one machine only."""
    for number, line in enumerate(text.splitlines(), start=1):
        found = MACHINE_PATH.search(line)
        if found:
            yield f"{path}:{number}: a path of a machine, {found.group()}..."


def main() -> int:
    """Print every complaint; the exit status is 1 if there are any."""
    complaints: list[str] = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # an image
            continue
        complaints += machine_paths(path, text)
        if path.suffix == ".py" and path.parts[0] in {"fxfuse", "tests"}:
            complaints += too_long(path, text)
    print("\n".join(complaints) or "every file and function is short enough")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
