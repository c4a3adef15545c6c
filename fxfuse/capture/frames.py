"""What user code asks of a proxy, read from the step of its function that is under way."""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
from typing import TYPE_CHECKING, Any

from fxfuse.modules.bytecode import number_at, steps_of

if TYPE_CHECKING:
    from types import CodeType, FrameType


@functools.cache
def _steps(code: CodeType) -> list[dis.Instruction]:
    return [step for step in steps_of(code) if step.opname != "PUSH_NULL"]


def _here(frame: FrameType) -> int:
    """Return the number of the step that a frame is in."""
    steps = _steps(frame.f_code)
    found = max((n for n, step in enumerate(steps) if step.offset <= frame.f_lasti), default=0)
    # Python 3.11 makes a call in two steps, of which the first is not among these.
    before_call = found + 1 < len(steps) and steps[found + 1].opname == "CALL" and frame.f_lasti > steps[found].offset
    return found + (before_call or _asks_before_jump(frame, steps, found))


def _asks_before_jump(frame: FrameType, steps: list[dis.Instruction], here: int) -> bool:
    """Whether a frame asks for a truth in a step of its own, as from Python 3.13 on, or in a comparison with a number.

    A comparison of lists asks for the truth of their elements, and does not jump by it.
    """
    if dis.opname[frame.f_code.co_code[frame.f_lasti]] == "TO_BOOL":
        return True
    before = steps[here - 1]
    number = before.opname.startswith("LOAD_") and type(before.argval) in (int, float)
    return steps[here].argrepr.startswith("bool(") and number


def raises_if(frame: FrameType, *, after_call: bool = False) -> bool | None:
    """Return for which truth of what a frame asks its function only raises: ``assert x``, ``if x: raise``; else None.

    Args:
        frame: the frame of the user's function.
        after_call: the frame is in the call that gives the truth, and not yet at the jump.
    """
    steps = _steps(frame.f_code)
    here = _here(frame) + after_call
    jump = steps[here] if here < len(steps) else steps[-1]
    if "JUMP" not in jump.opname or "_IF_" not in jump.opname or jump.opname.endswith("NONE"):
        return None
    jumps = "IF_TRUE" in jump.opname
    if _only_raises(steps, here + 1):
        return not jumps
    return jumps if _only_raises(steps, number_at(steps, jump.argval)) else None


def _only_raises(steps: list[dis.Instruction], start: int) -> bool:
    """Whether a function makes an exception there, and raises it."""
    ahead = itertools.takewhile(lambda step: not step.opname.startswith(_LEAVES), steps[start:])
    end = start + len(list(ahead))
    return end < len(steps) and steps[end].opname == "RAISE_VARARGS"


_WRITES = (
    "STORE_ATTR",
    "STORE_SUBSCR",
    "STORE_SLICE",
    "STORE_GLOBAL",
    "STORE_DEREF",
    "STORE_NAME",
    "DELETE",
    "POP_TOP",
)
_LEAVES = (*_WRITES, "RAISE", "RETURN", "RERAISE", "POP_JUMP", "JUMP", "FOR_", "YIELD", "SEND")


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
