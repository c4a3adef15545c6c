"""Whether one layer always follows another in a forward that cannot be traced, read from its source.

A run shows what followed what on its inputs.  For other inputs the forward may branch, so the source has to say that
the result of the first layer goes to the second, wherever the first is called, and to nothing else.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from fxfuse.call_sites import parsed_methods
from fxfuse.method_reader import LISTING
from fxfuse.python_source import is_name, nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_LEAVES_BLOCK = (ast.Return, ast.Raise, ast.Break, ast.Continue)


def always_follows(owner: nn.Module, first: nn.Module, second: nn.Module, method: str = "") -> bool:
    """Whether ``second`` is called on the result of ``first``, always, and nothing else reads that result.

    Args:
        owner: the module in whose methods both are called.
        first: a child of it.
        second: a child of it.
        method: another method to read than the forward.  A forward is searched for hidden ways to its children too.
    """
    try:
        methods = parsed_methods(owner, method or "forward")
    except (OSError, TypeError, SyntaxError, AttributeError):
        return False
    sites = {module: [] for module in (first, second)}  # type: dict[nn.Module, list[tuple[ast.AST, ast.Call]]]
    for tree, own in methods:
        if not method and _hides_calls(tree, own):
            return False
        for module, call in _calls(owner, tree, own):
            if module in sites:
                sites[module].append((tree, call))
    if len(sites[first]) != 1 or len(sites[second]) != 1 or sites[first][0][0] is not sites[second][0][0]:
        return False
    (tree, made), (_, used) = sites[first][0], sites[second][0]
    return _is_only_argument(used, made) or _through_a_name(tree, made, used)


def _hides_calls(tree: ast.AST, own: str) -> bool:
    """Whether a method could reach children by other ways than ``self.name``."""
    attributes = [n for n in nodes_of(tree) if isinstance(n, ast.Attribute) and is_name(n.value, own)]
    mentioned = [n for n in nodes_of(tree) if is_name(n, own)]
    return len(attributes) != len(mentioned) or any(n.attr in LISTING for n in attributes)


def _calls(owner: nn.Module, tree: ast.AST, own: str) -> Iterator[tuple[nn.Module, ast.Call]]:
    """Yield the calls of children by name, ``self.conv(x)``; any other mention counts as a call as well."""
    called = {node.func for node in nodes_of(tree) if isinstance(node, ast.Call)}
    calls = {node.func: node for node in nodes_of(tree) if isinstance(node, ast.Call)}
    for node in nodes_of(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == own:
            child = owner._modules.get(node.attr)
            if child is not None:
                yield child, calls[node] if node in called else ast.Call(node, [], [])


def _is_only_argument(call: ast.Call, argument: ast.AST) -> bool:
    return len(call.args) == 1 and call.args[0] is argument and not call.keywords


def _through_a_name(tree: ast.AST, made: ast.Call, used: ast.Call) -> bool:
    """``y = first(x)`` and later in the same block ``... second(y)``, with no other use of that ``y``."""
    for block in _blocks(tree):
        start = next((n for n, s in enumerate(block) if isinstance(s, ast.Assign) and s.value is made), None)
        end = next((n for n, s in enumerate(block) if used in ast.walk(s)), None)
        if start is None or end is None or end <= start:
            continue
        statement, last = block[start], block[end]
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if len(targets) != 1 or not isinstance(targets[0], ast.Name) or isinstance(last, _COMPOUND):
            return False
        name = targets[0].id
        if len(used.args) != 1 or used.keywords or not _is_load(used.args[0], name):
            return False
        between = [n for s in block[start + 1 : end] for n in ast.walk(s)]
        if any(isinstance(n, _LEAVES_BLOCK) or _is_changed(n, name) for n in between):
            return False
        return _reads(block[start + 1 : end + 1], name) == 1 and (_sets(last, name) or _reads([tree], name) == 1)
    return False


_COMPOUND = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.FunctionDef)


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in nodes_of(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                yield block


def _is_load(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _is_changed(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)


def _reads(nodes: list[ast.stmt] | list[ast.AST], name: str) -> int:
    return sum(_is_load(inner, name) for node in nodes for inner in ast.walk(node))


def _sets(statement: ast.stmt, name: str) -> bool:
    """Whether a statement gives the name a new value, so that what is read later is another one."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
