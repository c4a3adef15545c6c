"""What the texts in a function can be: ``for name in ("layer1", "layer2"): getattr(self, name)``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from fxfuse.source.syntax import binds, is_name, is_text, nodes_of, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def texts_of(tree: ast.AST, node: ast.expr) -> frozenset[str] | None:
    """Return what an expression in a function can be if it is a text, None where that cannot be said."""
    return _texts(tree, node, frozenset(), listed=False)


def _texts(tree: ast.AST, node: ast.expr, before: frozenset[str], *, listed: bool) -> frozenset[str] | None:
    """Return the texts that an expression can be, or of which it can be a list; ``before`` are names on the way."""
    if isinstance(node, ast.Name):
        return None if node.id in before else _of_name(tree, node.id, before | {node.id}, listed=listed)
    if not listed:
        return frozenset({node.value}) if is_text(node) else None  # type: ignore[attr-defined] # a text constant
    if isinstance(node, ast.Tuple) or (isinstance(node, ast.List) and not before):  # a list with a name may grow
        return _union(_texts(tree, item, before, listed=False) for item in node.elts)
    sliced = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice)
    return _texts(tree, node.value, before, listed=True) if sliced else None  # type: ignore[attr-defined] # a Subscript


def _of_name(tree: ast.AST, name: str, before: frozenset[str], *, listed: bool) -> frozenset[str] | None:
    found: list[frozenset[str] | None] = []
    for node in nodes_of(tree):
        if isinstance(node, (ast.For, ast.comprehension)) and is_name(node.target, name) and not listed:
            found.append(_texts(tree, node.iter, before, listed=True))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and any(
            is_name(target, name) for target in targets_of(node)
        ):
            part = isinstance(node.value, ast.Subscript) and is_name(node.value.value, name)  # names = names[:2]
            value = node.value or ast.Name("")
            found.append(frozenset() if part and listed else _texts(tree, value, before, listed=listed))
    everywhere = len(found) == sum(binds(node, name) for node in nodes_of(tree)[1:])
    return _union(found) if found and everywhere else None  # a name that is not set here is somebody else's


def _union(parts: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    result = frozenset[str]()
    for part in parts:
        if part is None:
            return None
        result |= part
    return result
