"""The layers of the package: who may import whom, and what the core needs to be imported."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fxfuse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(fxfuse.__file__).parent
# The command line, the benchmark and the page, which the core must work without.
AROUND = {
    *("__main__", "bench", "cli", "export", "export_formats", "measure", "models", "plots", "saved_program"),
    *("html_graph", "html_lanes", "html_report"),
}
CORE = [path for path in sorted(ROOT.rglob("*.py")) if path.stem not in AROUND]

# Every module imports from rows above its own, or from its own row.
LAYERS: dict[str, str] = {
    "what needs nothing": (
        "affine collection cost geometry linear_map filters reasons report guards exchange modules draft state "
        "python_source decorated known_objects catching questions threads rank_tables shape_numbers proxies "
        "own_forward layers_read"
    ),
    "a graph, read": (
        "operator_table mutations uses constants running_norms readers shapes sizes call naming graph aliases layout"
    ),
    "a graph, changed": "storage history arguments divided editor",
    "what is folded": "operators",
    "what folds it": "rules engine",
    "reading a model": (
        "norm_checks signatures tracer module_names method_reader known_texts hidden_ways call_sites adjacent "
        "hook_reader hook_effects examples"
    ),
    "a model as graphs": "lifted capture programs read_chains prove",
    "graphs as a model": "write_back fused_graph_module undo listed_layers other_methods placing finish",
    "a whole pass": "checks attempt optional_arguments faithful fusing",
    "what users call": "api pair verify fuse_pass snapshot backend",
    "the names they see": "__init__",
}


def name(path: Path) -> str:
    """The name of a module within the package; those of a sub-package go by its name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(module: str) -> int:
    """The number of the row that a module stands in."""
    return next((number for number, row in enumerate(LAYERS.values()) if module in row.split()), -1)


def imports(path: Path, *, at_run_time: bool = True) -> Iterator[str]:
    """The names of what a file imports; what is imported for the type checker alone does not count."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if lazy and at_run_time:
            continue
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        pending += node.orelse if isinstance(node, ast.If) and typing else ast.iter_child_nodes(node)


def own(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports."""
    for imported in imports(path, at_run_time=False):
        if imported.startswith("fxfuse."):
            yield imported.split(".")[1]


def test_every_module_stands_in_a_layer() -> None:
    listed = [module for row in LAYERS.values() for module in row.split()]
    assert len(listed) == len(set(listed)), "a module stands in two layers"
    assert set(listed) == {name(path) for path in CORE}


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in CORE
        for imported in own(path)
        if layer(imported) > layer(name(path)) or imported in AROUND
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    needs = {f"{path.relative_to(ROOT).with_suffix('')}".replace("/", "."): set(imports(path)) for path in CORE}
    graph = {m: {i.removeprefix("fxfuse.") for i in found if i.startswith("fxfuse.")} for m, found in needs.items()}
    left = dict(graph)
    while left:
        free = [module for module, found in left.items() if not found & left.keys() - {module}]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_the_core_needs_torch_and_tabulate_alone() -> None:
    allowed = {"fxfuse", "torch", "tabulate"} | set(sys.stdlib_module_names)
    needed = {(name(path), i) for path in CORE for i in imports(path) if i.split(".")[0] not in allowed}
    assert needed == set()


def test_only_the_editor_takes_nodes_out() -> None:
    users = [path.stem for path in CORE if "replace_all_uses_with" in path.read_text(encoding="utf-8")]
    # The others move what is stored between inputs and attributes, before and after the rules.
    assert sorted(users) == ["backend", "editor", "lifted"]
