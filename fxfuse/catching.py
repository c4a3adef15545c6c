"""Whether functions that are under way go on after exceptions: a graph would go on as if there were none."""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

_HANDLES = ("PUSH_EXC_INFO", "SETUP_FINALLY", "SETUP_WITH")  # the first from Python 3.11 on
_PASS_ON = ("torch.", "nullcontext(", "contextlib.nullcontext(")  # context managers that catch nothing
_ENDS = (ast.Return, ast.Break, ast.Continue)
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

_known: dict[int, tuple[CodeType, bool]] = {}  # by number: to compare codes takes longer than all the rest


def catches(frame: FrameType) -> bool:
    """Whether the function of a frame, if it is the user's, goes on after some exceptions."""
    code = frame.f_code
    if id(code) not in _known:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        _known[id(code)] = code, package not in ("torch", "fxfuse") and goes_on(code)
    return _known[id(code)][1]


def goes_on(code: CodeType) -> bool:
    """Whether a function goes on after some exceptions, or nobody can say."""
    if not any(step.opname in _HANDLES for step in dis.get_instructions(code)):
        return False
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return True
    return any(_swallows(node) for node in _own_nodes(tree))


def _swallows(node: ast.AST) -> bool:
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return not all(ast.unparse(item.context_expr).startswith(_PASS_ON) for item in node.items)
    if not hasattr(node, "handlers"):
        return False
    ends = [inner for statement in node.finalbody for inner in ast.walk(statement) if isinstance(inner, _ENDS)]  # type: ignore[attr-defined] # a try
    return bool(ends) or not all(_raises(handler) for handler in node.handlers)


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
