"""Whether a method calls layers that it took out of a list of layers: ``list(self.children())[0](x)``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from fxfuse.method_reader import LISTING
from fxfuse.module_names import CONTAINERS
from fxfuse.python_source import is_name, last_name, nodes_of, targets_of

if TYPE_CHECKING:
    from collections.abc import Collection

_LISTS = LISTING - {"apply"}  # which gives the module itself
_MADE = tuple(cls.__name__ for cls in CONTAINERS)
_CALLED = ("forward", "__call__")


def calls_listed(tree: ast.AST, containers: Collection[str]) -> bool:
    """Whether a method calls what comes from a list of layers, or makes a container of it.

    Args:
        tree: the method.
        containers: the attributes that hold several layers.
    """
    names: set[str] = set()
    for _ in range(3):  # they can depend on each other, seldom deeper
        for node in nodes_of(tree):
            for target, value in _bindings(node):
                if _comes_from(value, names, containers):
                    names |= {inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return any(_calls(node, names, containers) for node in nodes_of(tree) if isinstance(node, ast.Call))


def _calls(call: ast.Call, names: set[str], containers: Collection[str]) -> bool:
    function: ast.expr = call.func
    if last_name(function) in _MADE:
        return any(_comes_from(argument, names, containers) for argument in call.args)
    if isinstance(function, ast.Attribute) and function.attr in _CALLED:
        function = function.value
    called = isinstance(function, (ast.Name, ast.Call, ast.Subscript))
    return called and _comes_from(function, names, containers)


def _comes_from(value: ast.AST, names: set[str], containers: Collection[str]) -> bool:
    """Whether an expression mentions a list of layers, or a name that comes from one."""
    inner = list(ast.walk(value))
    listed = any(isinstance(node, ast.Attribute) and (node.attr in _LISTS or node.attr in containers) for node in inner)
    return listed or any(is_name(node, *names) for node in inner)


def _bindings(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """Return the targets that a statement or loop sets, each with what it gets."""
    if isinstance(node, (ast.For, ast.comprehension)):
        return [(node.target, node.iter)]
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        return [(target, node.value) for target in targets_of(node)]
    return []
