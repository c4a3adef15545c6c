"""What user code asks of a proxy, read from the step of its function that is under way."""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import itertools
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.modules.code import wrappers_of
from fxfuse.modules.guards import require_rank

if TYPE_CHECKING:
    from types import CodeType, FrameType

_SILENT = ("CACHE", "TO_BOOL", "NOT_TAKEN", "PRECALL", "PUSH_NULL")
_STATES = frozenset("is_grad_enabled is_inference_mode_enabled is_autocast_enabled is_inference".split())


@functools.cache
def _steps(code: CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in _SILENT]


def _here(frame: FrameType) -> int:
    """Return the number of the step that a frame is in."""
    steps = _steps(frame.f_code)
    found = max((n for n, step in enumerate(steps) if step.offset <= frame.f_lasti), default=0)
    # Python 3.11 makes a call in two steps, of which the first is not among these.
    before_call = found + 1 < len(steps) and steps[found + 1].opname == "CALL" and frame.f_lasti > steps[found].offset
    return found + 1 if before_call else found


def is_assertion(frame: FrameType, *, after_call: bool = False) -> bool:
    """Whether the truth that a frame asks for decides about an ``assert``: the next step raises, or is jumped over.

    Args:
        frame: the frame of the user's function.
        after_call: the frame is in the call of which the result is asserted, and not yet at the jump.
    """
    steps = _steps(frame.f_code)
    here = _here(frame) + after_call
    if here + 1 >= len(steps):
        return False
    jump, then = steps[here], steps[here + 1]
    jumps = "JUMP" in jump.opname and "IF_TRUE" in jump.opname
    return jumps and (then.opname == "LOAD_ASSERTION_ERROR" or then.argval in ("AssertionError", AssertionError))


_RANK_CHECKS: dict[CodeType, int | None] = {
    cls._check_input_dim.__code__: axes
    for cls, axes in ((nn.BatchNorm1d, None), (nn.BatchNorm2d, 4), (nn.BatchNorm3d, 5))
}


def checks_rank(frame: FrameType) -> bool:
    """Whether one of torch's batch norms compares the number of axes of its input; the check becomes a node."""
    if frame.f_code not in _RANK_CHECKS:
        return False
    axes = _RANK_CHECKS[frame.f_code]
    if axes is not None:
        require_rank(frame.f_locals["input"], axes, type(frame.f_locals["self"]).__name__)
    return True


def asked_classes(frame: FrameType) -> tuple[type, ...]:
    """Return the classes of ``isinstance(value, classes)`` if a frame is in such a call, nothing if one cannot tell."""
    steps = _steps(frame.f_code)
    here = _here(frame)
    call, before = steps[here], steps[max(0, here - 14) : here]
    if not call.opname.startswith("CALL") or call.arg != 2 or not any(s.argval == "isinstance" for s in before):
        return ()
    if before[-1].opname == "BUILD_TUPLE":
        count = before[-1].arg or 0
        found = [_loaded(frame, step) for step in before[-1 - count : -1]]
    elif before[-1].opname == "LOAD_ATTR":
        found = [getattr(_loaded(frame, before[-2]), before[-1].argval, None)]
    else:
        found = [_loaded(frame, before[-1])]
    return tuple(found) if all(isinstance(cls, type) for cls in found) else ()


def unpacked(frame: FrameType) -> int | None:
    """Return into how many names a frame unpacks a value at this step, None where it does something else.

    ``a, b = map(sum, values)`` unpacks what ``map`` gives, while ``sum`` looks at each of the values in turn.
    """
    steps = _steps(frame.f_code)
    here = _here(frame)
    if steps[here].opname != "UNPACK_SEQUENCE":
        return None
    statement = itertools.takewhile(lambda step: not step.opname.startswith(_ENDS), reversed(steps[:here]))
    return None if any(_gives_iterator(frame, step) for step in statement) else steps[here].argval


_ENDS = ("STORE", "POP_TOP", "RETURN", "RAISE")  # of what came before in a function


def _gives_iterator(frame: FrameType, step: dis.Instruction) -> bool:
    """Whether a step loads an iterator, a class of these, or the module that has most of them."""
    loaded = [_loaded(frame, step)] if step.opname == "LOAD_GLOBAL" else []
    if step.opname.startswith(("LOAD_FAST", "LOAD_NAME", "LOAD_DEREF")):
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        loaded = [frame.f_locals.get(name) for name in names]
    return any(
        value is itertools or hasattr(value if issubclass(type(value), type) else type(value), "__next__")
        for value in loaded
    )


def _loaded(frame: FrameType, step: dis.Instruction) -> Any:
    """Return what a step loads by name."""
    if step.opname != "LOAD_GLOBAL":
        return None
    return frame.f_globals.get(step.argval, getattr(builtins, str(step.argval), None))


def asks_what_a_graph_cannot_say(function: Any) -> str:
    """Return what a function asks that a proxy would answer wrongly and cannot notice, empty for nothing."""
    functions = (*wrappers_of(function), inspect.unwrap(function))
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
