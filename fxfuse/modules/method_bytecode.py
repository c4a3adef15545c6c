"""What a method does with what its layers give, step by step of its code."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING

from fxfuse.modules.bytecode import SILENT, last_variable, loads_and_stores, steps_of

if TYPE_CHECKING:
    from types import CodeType, FunctionType


def returns_nothing(code: CodeType) -> bool:
    """Whether a function returns None whatever happens."""
    steps = steps_of(code)
    pairs = zip([None, *steps], steps, strict=False)
    values = [step if step.opname == "RETURN_CONST" else before for before, step in pairs if "RETURN_" in step.opname]
    nothing = all(v is not None and v.opname.endswith("_CONST") and v.argval is None for v in values)
    return nothing and not code.co_flags & 0x2A0  # no generator or coroutine


def own_names(function: FunctionType) -> set[str] | None:
    """Return the attributes of its first parameter that a function reads, None if it does anything else with it.

    Nor may it set an attribute of anything: the object may be one that the forward reads.
    """
    code = function.__code__
    if not code.co_argcount or code.co_varnames[0] in code.co_cellvars or "__class__" in code.co_freevars:
        return None
    own, steps, found = code.co_varnames[0], steps_of(code), set[str]()
    if any(step.opname == "STORE_ATTR" for step in steps):
        return None
    for number, step in enumerate(steps):
        mentioned = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if "FAST" not in step.opname or own not in mentioned:
            continue
        then, before = steps[number + 1], steps[number - 1].opname
        if (
            step.opname.startswith("LOAD")
            and last_variable(step) == own
            and then.opname in ("LOAD_ATTR", "LOAD_METHOD")
        ):
            found.add(then.argval)
        elif not (step.opname.startswith("LOAD") and "PUSH_NULL" in (before, then.opname)):
            return None
    return found


def hands_on(code: CodeType, first: str, second: str) -> bool:
    """Whether a method calls ``self.first`` once, and gives the result to ``self.second``, and to nothing else.

    Example:
        >>> def forward(self, x): return self.bn(self.conv(x)).relu()
        >>> hands_on(forward.__code__, "conv", "bn"), hands_on(forward.__code__, "bn", "conv")
        (True, False)
    """
    steps = list(dis.get_instructions(code))
    found = [[n for n, step in enumerate(steps) if step.argval == name] for name in (first, second)]
    if [len(numbers) for numbers in found] != [1, 1]:
        return False
    ends = [_end_of_call(steps, numbers[0]) for numbers in found]
    plain = [step for step in steps[ends[0] + 1 :] if step.opname not in SILENT]
    if ends[0] < 0 or ends[1] < 0 or steps[ends[1]].arg != 1:
        return False
    if plain and plain[0] is steps[ends[1]]:
        return True
    pairs = [pair for step in plain[:7] for pair in loads_and_stores(step)]
    stored, own, method, loaded, call, after = pairs[:6] if len(pairs) > 5 else [("", "")] * 6
    named = stored[0] == "STORE" and own == ("LOAD", code.co_varnames[0]) and method[1] == second
    over = after[0] == "RETURN_VALUE" or after == stored  # nobody can read the first result any more
    return named and loaded == ("LOAD", stored[1]) and call[0] == "CALL" and over


def _end_of_call(steps: list[dis.Instruction], start: int) -> int:
    """Return the number of the step that calls a method that is loaded at ``start``, -1 if there is none."""
    depth = 0
    for number in range(start + 1, len(steps)):
        if steps[number].opname.startswith(("JUMP", "POP_JUMP", "FOR_ITER", "RETURN")):
            return -1
        depth += dis.stack_effect(steps[number].opcode, steps[number].arg)
        if depth < 0:
            return number
    return -1
