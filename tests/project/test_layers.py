"""The layers of the package; the order of its folders is a contract of import-linter in ``pyproject.toml``."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fxfuse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(fxfuse.__file__).parent
# The command line, the benchmark and the page may need more than the core.
CORE = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")]


def imports(path: Path) -> Iterator[str]:
    """The names of what a file imports when it is imported: not in functions, and not for the type checker."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        pending += node.orelse if isinstance(node, ast.If) and typing else ast.iter_child_nodes(node)


def test_no_file_imports_itself_in_a_circle() -> None:
    grimp = pytest.importorskip("grimp")  # which import-linter is built on
    graph = grimp.build_graph("fxfuse", exclude_type_checking_imports=False, cache_dir=None)
    needs = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(needs) > 100
    needs["fxfuse"].discard("fxfuse.cli.html_report")  # when somebody asks for it, and not before
    graphlib.TopologicalSorter(needs).prepare()  # an error names the circle


def test_the_core_needs_torch_and_tabulate_alone() -> None:
    allowed = {"fxfuse", "torch", "tabulate"} | set(sys.stdlib_module_names)
    needed = {(path.stem, i) for path in CORE for i in imports(path) if i.split(".")[0] not in allowed}
    assert needed == set()


def test_only_the_editor_takes_nodes_out() -> None:
    users = [path.stem for path in CORE if "replace_all_uses_with" in path.read_text(encoding="utf-8")]
    # The others move what is stored between inputs and attributes, before and after the rules.
    assert sorted(users) == ["editor", "lifted"]
