"""Whether functions that are under way go on after exceptions: a graph would go on as if there were none."""

from __future__ import annotations

import ast
import contextlib
import dis
import inspect
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import CodeType, FrameType

_HANDLES = ("PUSH_EXC_INFO", "SETUP_FINALLY", "SETUP_WITH")  # the first from Python 3.11 on
_HARMLESS = (contextlib.nullcontext, warnings.catch_warnings)
_ENDS = (ast.Return, ast.Break, ast.Continue)
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

_known: dict[int, tuple[CodeType, bool]] = {}  # by number: to compare codes takes longer than all the rest


def catches(frame: FrameType) -> bool:
    """Whether the function of a frame, if it is the user's, goes on after some exceptions."""
    code = frame.f_code
    if id(code) not in _known:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        _known[id(code)] = code, package not in ("torch", "fxfuse") and goes_on(code, frame.f_globals)
    return _known[id(code)][1]


def goes_on(code: CodeType, known: Mapping[str, Any]) -> bool:
    """Whether a function goes on after some exceptions, or nobody can say.

    Args:
        code: the function.
        known: the variables of its Python module.
    """
    if not any(step.opname in _HANDLES for step in dis.get_instructions(code)):
        return False
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return True
    return any(_swallows(node, known) for node in _own_nodes(tree))


def _swallows(node: ast.AST, known: Mapping[str, Any]) -> bool:
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return not all(_passes_on(item.context_expr, known) for item in node.items)
    if not hasattr(node, "handlers"):
        return False
    ends = [inner for statement in node.finalbody for inner in ast.walk(statement) if isinstance(inner, _ENDS)]  # type: ignore[attr-defined] # a try
    return bool(ends) or not all(_raises(handler) for handler in node.handlers)


def _passes_on(manager: ast.expr, known: Mapping[str, Any]) -> bool:
    """Whether a context manager is known to catch nothing."""
    called, names = manager.func if isinstance(manager, ast.Call) else manager, list[str]()
    while isinstance(called, ast.Attribute):
        names.append(called.attr)
        called = called.value
    found = known.get(called.id) if isinstance(called, ast.Name) else None
    for name in reversed(names):
        found = getattr(found, name, None)
    if (
        any(found is manager for manager in _HARMLESS)
        or str(getattr(found, "__module__", None)).partition(".")[0] == "torch"
    ):
        return True
    plain = inspect.unwrap(found) if callable(found) else None  # the generator behind ``contextlib.contextmanager``
    return inspect.isgeneratorfunction(plain) and not goes_on(plain.__code__, plain.__globals__)


def _raises(handler: ast.ExceptHandler) -> bool:
    """Whether an exception is only told in other words."""
    return isinstance(handler.body[-1], ast.Raise) and not any(isinstance(n, _ENDS) for n in ast.walk(handler))


def _own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a function without those of functions in it."""
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _INNER):
            pending += ast.iter_child_nodes(node)
