"""Functions of the user's as syntax trees."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


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


class Source(NamedTuple):
    """The syntax tree of a function, the name of its first parameter, and the function."""

    tree: ast.AST
    own: str
    function: Any


def sources_of(defined: Any) -> list[Source]:
    """Return the source of a method or function, after those of what is around it, the outermost first.

    Raises:
        OSError: if one of them has no source, or does with its first parameter what cannot be read.
    """
    function = plain_function(defined)
    around = [Source(*_parse_wrapper(wrapper), wrapper) for wrapper in _wrappers_of(defined)]
    return around if function is None else [*around, Source(*parse(function), function)]


def called_function(caller: Source, call: ast.Call, argument: ast.expr) -> tuple[Any, str]:
    """Return the plain function of the user's that a call in a function calls, and the parameter that gets an argument.

    None, and no name, where that cannot be said.
    """
    nothing = (None, "")
    function = _global(caller, call.func)
    if not inspect.isfunction(function) or function.__module__.startswith("torch."):
        return nothing
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return nothing
    taken = function.__code__.co_varnames[: function.__code__.co_argcount]
    position = next((n for n, a in enumerate(call.args) if a is argument), None)
    if position is not None:
        return (function, taken[position]) if position < len(taken) else nothing
    return next(((function, k.arg) for k in call.keywords if k.value is argument and k.arg in taken), nothing)


def is_looked_up(caller: Source, call: ast.Call) -> bool:
    """Whether a call is ``KNOWN.get(argument)`` of a dictionary that is a variable of the Python module."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != "get":
        return False
    return isinstance(_global(caller, function.value), (dict, weakref.WeakKeyDictionary))


def _global(source: Source, node: ast.expr) -> Any:
    """Return what a name in a function stands for, if it is one of the Python module; None for any other expression."""
    if not isinstance(node, ast.Name):
        return None
    code, name = source.function.__code__, node.id
    local = any(binds(inner, name) for inner in nodes_of(source.tree)[1:])
    return None if local or name in code.co_freevars else source.function.__globals__.get(name)


def binds(node: ast.AST, name: str) -> bool:
    """Whether a node gives a name a value: as a target or parameter, or in ``case``, ``except``, ``import``, ``def``."""
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.arg):
        return node.arg == name
    return name in (getattr(node, "name", None), getattr(node, "asname", None), getattr(node, "rest", None))


_RUN_TEXT = ("eval", "exec", "locals", "vars", "globals", "_getframe", "currentframe")


def runs_text(tree: ast.AST) -> bool:
    """Whether a function runs code that its source does not show, or has variables that others see as well."""
    return any(
        is_name(n, *_RUN_TEXT)
        or (isinstance(n, ast.Attribute) and n.attr in _RUN_TEXT)
        or isinstance(n, (ast.Global, ast.Nonlocal))
        for n in nodes_of(tree)
    )


def _wrappers_of(defined: Any) -> list[Any]:
    """Return the functions around a decorated one, the outermost first; torch's own do nothing but call it."""
    defined = defined.fget if isinstance(defined, property) else defined
    current, found = getattr(defined, "__func__", defined), []
    while inspect.isfunction(current) and hasattr(current, "__wrapped__"):
        if not current.__globals__.get("__name__", "").startswith("torch."):
            found.append(current)
        current = current.__wrapped__
    return found


@functools.cache
def _parse_wrapper(wrapper: Any) -> tuple[ast.FunctionDef, str]:
    """Return the syntax tree of a function around another, and the name of its first parameter.

    Where it hands that parameter to the function that it wraps, the tree does not say so: that one is read by itself.

    Raises:
        OSError: if it cannot be said what it does with its first parameter.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(wrapper.__code__))).body[0]
    cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
    plain = inspect.unwrap(wrapper)
    wrapped = [n for n, c in cells if callable(c.cell_contents) and inspect.unwrap(c.cell_contents) is plain]
    if not isinstance(tree, ast.FunctionDef) or not wrapped:
        raise OSError("it is decorated")
    parameters = [*tree.args.posonlyargs, *tree.args.args]
    own = parameters[0].arg if parameters else ""
    if any(
        binds(node, name) for name in (*wrapped, own) for node in list(ast.walk(tree))[1:] if node not in parameters
    ):
        raise OSError("it is decorated")  # one of them may be another function there
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not own and not _only_handed_on(tree, [call for call in calls if is_name(call.func, *wrapped)]):
        raise OSError("it is decorated")
    for call in calls:
        before = [call.func, *call.args]  # func(self, x), and partial(func, self, x)
        call.args = [
            a for b, a in zip(before, call.args, strict=False) if not (is_name(b, *wrapped) and is_name(a, own))
        ]
    return tree, own


def _only_handed_on(tree: ast.FunctionDef, calls: list[ast.Call]) -> bool:
    """Whether the arguments of a function, which has names for none of them, are handed to some calls, and used up."""
    names = [a.arg for a in (tree.args.vararg,) if a is not None]
    starred = [a for call in calls for a in call.args if isinstance(a, ast.Starred) and is_name(a.value, *names)]
    return len(starred) == sum(is_name(n, *names) for n in ast.walk(tree))


def looks_into_rest(tree: ast.AST, names: Iterable[str]) -> bool:
    """Whether a function may look at arguments of these names among those that it has no names for.

    It may hand them on, and ask for others by their names: ``kwargs.pop("return_dict")``.
    """
    own = tree.args if isinstance(tree, ast.FunctionDef) else None
    rest = [a.arg for a in (own.vararg, own.kwarg) if a is not None] if own is not None else []
    parents = parents_of(tree)
    return any(is_name(node, *rest) and not _spares(node, parents, {*names}) for node in nodes_of(tree))


def _spares(node: ast.AST, parents: dict[ast.AST, ast.AST], names: set[str]) -> bool:
    """Whether a use of all other arguments does not look at some of them."""
    parent = parents[node]
    if isinstance(parent, (ast.Starred, ast.keyword)):
        return True
    asked: ast.AST | None = None
    if isinstance(parent, ast.Attribute) and parent.attr in ("get", "pop", "setdefault"):
        call = parents[parent]
        asked = call.args[0] if isinstance(call, ast.Call) and call.args else None
    elif isinstance(parent, ast.Subscript) and parent.value is node:
        asked = parent.slice
    elif isinstance(parent, ast.Compare) and node is not parent.left:
        asked = parent.left
    return isinstance(asked, ast.Constant) and isinstance(asked.value, str) and asked.value not in names


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
