"""Functions of the user's as syntax trees."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import CodeType


def mentions(function: Any) -> set[str] | None:
    """Return the names of all attributes of ``self`` that a method or property mentions.

    None where that cannot be said, since there is no source or ``self`` is handed on to something else, and where it
    sets one of them.
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
    sets = any(not isinstance(n.ctx, ast.Load) for n in named)
    return {n.attr for n in named} if len(named) + len(called) == len(mentioned) and not sets else None


def defining_class(cls: type, name: str, *, after: type | None = None) -> type | None:
    """Return the class in the method resolution order that defines a name, optionally only after another class."""
    order = cls.__mro__
    order = order[order.index(after) + 1 :] if after is not None else order
    return next((c for c in order if name in vars(c)), None)


def plain_function(defined: Any) -> Any:
    """Return the plain function behind a method, property, class method or decorated function, or None."""
    if isinstance(defined, property):
        defined = defined.fget
    if isinstance(defined, functools.cached_property):
        defined = defined.func
    defined = inspect.unwrap(getattr(defined, "__func__", defined)) if defined is not None else None
    return defined if inspect.isfunction(defined) else None


@functools.cache
def parse(function: Any) -> tuple[ast.AST, str]:
    """Return the syntax tree of a function and the name of its first parameter."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise OSError("not a function definition")
    _mangle(tree, function.__qualname__.rpartition(".")[0].rpartition(".")[2])
    parameters = [*tree.args.posonlyargs, *tree.args.args]
    return tree, parameters[0].arg if parameters else ""


def trees_of(function: Any) -> list[ast.AST]:
    """Return the syntax tree of a function; of a lambda those of all that begin in its line."""
    if function.__name__ != "<lambda>":
        return [parse(function)[0]]
    lines, _ = inspect.findsource(function)
    return [n for n in _lambdas("".join(lines)) if n.lineno == function.__code__.co_firstlineno]


@functools.lru_cache(maxsize=8)  # files
def _lambdas(text: str) -> list[ast.Lambda]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)]


def _mangle(tree: ast.AST, cls: str) -> None:
    """Give private attributes the names that they have outside of their class: ``self.__conv`` is ``_Net__conv``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("__") and not node.attr.endswith("__"):
            node.attr = f"_{cls.lstrip('_')}{node.attr}"


class Source(NamedTuple):
    """The syntax tree of a function, the name of its first parameter, and the function."""

    tree: ast.AST
    own: str
    function: Any


def called_function(caller: Source, call: ast.Call, argument: ast.expr) -> tuple[Any, str]:
    """Return the plain function of the user's that a call in a function calls, and the parameter that gets an argument.

    None, and no name, where that cannot be said.
    """
    nothing = (None, "")
    function = global_of(caller, call.func)
    if not inspect.isfunction(function) or function.__module__.startswith("torch."):
        return nothing
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return nothing
    taken = function.__code__.co_varnames[: function.__code__.co_argcount]
    position = next((n for n, a in enumerate(call.args) if a is argument), None)
    if position is not None:
        return (function, taken[position]) if position < len(taken) else nothing
    return next(((function, k.arg) for k in call.keywords if k.value is argument and k.arg in taken), nothing)


def named_method(caller: Source, attribute: ast.AST | None, kind: type) -> tuple[type, str] | None:
    """Return the method that ``Base.run`` or ``super(Base, self).run`` is for a class: its definer and name.

    None where ``Base`` is no class of the Python module that ``kind`` is made from, or has no such method.
    """
    if not isinstance(attribute, ast.Attribute):
        return None
    value = attribute.value
    behind = value.args[0] if isinstance(value, ast.Call) and is_super(value) and value.args else None
    cls = global_of(caller, value if behind is None else behind)
    if not isinstance(cls, type) or not issubclass(kind, cls):
        return None
    start, after = (cls, None) if behind is None else (kind, cls)
    definer = defining_class(start, attribute.attr, after=after)
    return None if definer is None else (definer, attribute.attr)


def is_looked_up(caller: Source, call: ast.Call) -> bool:
    """Whether a call is ``KNOWN.get(argument)`` of a dictionary that is a variable of the Python module."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != "get":
        return False
    return isinstance(global_of(caller, function.value), (dict, weakref.WeakKeyDictionary))


def global_of(source: Source, node: ast.expr) -> Any:
    """Return what a name in a function stands for, if it is one of the Python module; None for any other expression."""
    if not isinstance(node, ast.Name):
        return None
    local = node.id in bound_in(source.tree) or node.id in source.function.__code__.co_freevars
    return None if local else source.function.__globals__.get(node.id)


@functools.cache  # of trees that ``parse`` remembers as well
def bound_in(tree: ast.AST) -> frozenset[str]:
    """Return the names that a function gives values: targets, parameters, those of ``case``, ``import``, ``def``."""
    return frozenset(name for node in nodes_of(tree)[1:] for name in _bound_by(node) if name is not None)


def binds(node: ast.AST, name: str) -> bool:
    """Whether a node gives a name a value."""
    return name in _bound_by(node)


def _bound_by(node: ast.AST) -> tuple[str | None, ...]:
    if isinstance(node, ast.Name):
        return () if isinstance(node.ctx, ast.Load) else (node.id,)
    if isinstance(node, ast.arg):
        return (node.arg,)
    return getattr(node, "name", None), getattr(node, "asname", None), getattr(node, "rest", None)


_RUN_TEXT = ("eval", "exec", "locals", "vars", "globals", "_getframe", "currentframe")


@functools.cache
def runs_text(tree: ast.AST) -> bool:
    """Whether a function runs code that its source does not show, or has variables that others see as well."""
    return any(
        is_name(n, *_RUN_TEXT)
        or (isinstance(n, ast.Attribute) and n.attr in _RUN_TEXT)
        or isinstance(n, (ast.Global, ast.Nonlocal))
        for n in nodes_of(tree)
    )


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


def last_name(node: ast.AST) -> str:
    """Return ``run`` for ``run`` and ``self.run``, nothing for other expressions."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_text(node: ast.AST) -> bool:
    """Whether an expression is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_super(node: ast.Call) -> bool:
    """Whether a call is ``super()``."""
    return is_name(node.func, "super")


def targets_of(node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> list[ast.expr]:
    """Return what an assignment sets."""
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def gives(parent: ast.expr, node: ast.expr) -> bool:
    """Whether an expression has the value of this part of it, at least sometimes."""
    arm = isinstance(parent, ast.IfExp) and node is not parent.test
    return arm or isinstance(parent, (ast.BoolOp, ast.NamedExpr))


def spares_first(tree: ast.AST, code: CodeType, first: int) -> bool:
    """Whether a function looks at none of the first values in ``*args``: it is ``args[1]`` alone, or not there."""
    if not code.co_flags & inspect.CO_VARARGS:
        return False
    name, parents = code.co_varnames[code.co_argcount + code.co_kwonlyargcount], parents_of(tree)
    for node in (node for node in nodes_of(tree) if is_name(node, name)):
        parent = parents[node]
        number = parent.slice if isinstance(parent, ast.Subscript) and parent.value is node else None
        if not isinstance(number, ast.Constant) or not isinstance(number.value, int) or number.value < first:
            return False
    return True
