"""Steps of code that no graph can stand for."""

from __future__ import annotations

import dis
import functools
import inspect
from typing import TYPE_CHECKING, Any

from fxfuse.modules.origin import wrappers_of

if TYPE_CHECKING:
    from types import CodeType

_HANDLERS = frozenset("PUSH_EXC_INFO SETUP_FINALLY SETUP_WITH".split())  # the first from Python 3.11 on


def handles_exceptions(code: CodeType) -> bool:
    """Whether a function may go on after an exception: it has a ``try`` or a ``with``."""
    return any(step.opname in _HANDLERS for step in dis.get_instructions(code))


_STATES = frozenset("is_grad_enabled is_inference_mode_enabled is_autocast_enabled is_inference".split())


def asks_what_a_graph_cannot_say(function: Any) -> str:
    """Return what a function asks that a proxy would answer wrongly and cannot notice, empty for nothing."""
    wrappers = wrappers_of(function) if hasattr(function, "__wrapped__") else ()
    functions = (*wrappers, inspect.unwrap(function))
    codes = (getattr(inner, "__code__", None) for inner in functions)
    return next(filter(None, (_asked(code) for code in codes if code is not None)), "")


@functools.cache
def _asked(code: CodeType) -> str:
    asked = _STATES & set(code.co_names)
    if asked:
        return f"it calls {min(asked)}"
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "IS_OP" and before is not None and before.opname != "LOAD_CONST":
            return "it compares by identity"
        before = step
    return ""
