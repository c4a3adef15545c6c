"""Functions of the user's as syntax trees."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any


def mentions(function: Any) -> set[str] | None:
    """Return the names of all attributes of ``self`` that a method or property mentions.

    None where that cannot be said: there is no source, or ``self`` is handed on to something else.
    """
    try:
        tree, own = parse(plain_function(function))
    except (OSError, TypeError, SyntaxError):
        return None
    if not own:  # a wrapper that hands on whatever it gets
        return None
    named = [n for n in nodes_of(tree) if isinstance(n, ast.Attribute) and is_name(n.value, own)]
    called = [n for n in nodes_of(tree) if isinstance(n, ast.Call) and is_name(n.func, own)]
    mentioned = [n for n in nodes_of(tree) if is_name(n, own)]
    return {n.attr for n in named} if len(named) + len(called) == len(mentioned) else None


def defining_class(cls: type, name: str, *, after: type | None = None) -> type | None:
    """Return the class in the method resolution order that defines a name, optionally only after another class."""
    order = cls.__mro__
    order = order[order.index(after) + 1 :] if after is not None else order
    return next((c for c in order if name in vars(c)), None)


def plain_function(defined: Any) -> Any:
    """Return the plain function behind a method, property, class method or decorated function, or None."""
    if isinstance(defined, property):
        defined = defined.fget
    defined = inspect.unwrap(getattr(defined, "__func__", defined)) if defined is not None else None
    return defined if inspect.isfunction(defined) else None


@functools.cache
def parse(function: Any) -> tuple[ast.AST, str]:
    """Return the syntax tree of a function and the name of its first parameter."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise OSError("not a function definition")
    parameters = [*tree.args.posonlyargs, *tree.args.args]
    return tree, parameters[0].arg if parameters else ""


@functools.cache  # of trees that ``parse`` remembers as well
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return the nodes of a tree that ``parse`` gave."""
    return tuple(ast.walk(tree))


@functools.cache
def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Return each node of a tree that ``parse`` gave, but for the root, with the node that holds it."""
    return {child: node for node in nodes_of(tree) for child in ast.iter_child_nodes(node)}


def is_name(node: ast.AST, *names: str) -> bool:
    """Whether an expression is one of these names."""
    return isinstance(node, ast.Name) and node.id in names


def is_text(node: ast.AST) -> bool:
    """Whether an expression is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_super(node: ast.Call) -> bool:
    """Whether a call is ``super()``."""
    return is_name(node.func, "super")
