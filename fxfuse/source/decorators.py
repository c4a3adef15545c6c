"""What is around a decorated method: read like the method, where it only hands on what it gets."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from fxfuse.source.syntax import Source, binds, is_name, nodes_of, parents_of, parse, plain_function

if TYPE_CHECKING:
    from collections.abc import Iterable


def sources_of(defined: Any) -> list[Source]:
    """Return the source of a method or function, after those of what is around it, the outermost first.

    Raises:
        OSError: if one of them has no source, or does with its first parameter what cannot be read.
    """
    function = plain_function(defined)
    around = [Source(*_parse_wrapper(wrapper), wrapper) for wrapper in wrappers_of(defined)]
    return around if function is None else [*around, Source(*parse(function), function)]


def wrappers_of(defined: Any) -> list[Any]:
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
    inner = [node for node in ast.walk(tree) if node not in (tree, *parameters)]
    if any(binds(node, name) for name in (*wrapped, own) for node in inner):
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


def forbids_tracing(forward: Any) -> str:
    """Return why a decorated forward can tell how it is called, so that a graph holds for some calls; empty if not."""
    plain = list(inspect.signature(plain_function(forward)).parameters.values()) if wrappers_of(forward) else []
    for wrapper in wrappers_of(forward):
        try:
            tree, _ = _parse_wrapper(wrapper)
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # it is run as it is
        named = [p for p in inspect.signature(wrapper, follow_wrapped=False).parameters.values() if p.kind not in _REST]
        same = [(p.name, p.default) for p in named[1:]] == [(p.name, p.default) for p in plain[1 : len(named)]]
        if not same or looks_into_rest(tree, [p.name for p in plain]):
            return "what is around its forward looks at its arguments"
        if any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in nodes_of(tree)):
            return "what is around its forward has a memory"
    return ""


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


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
