"""What a function calls, and what it gives to what it calls."""

from __future__ import annotations

import dis
import itertools
import re
import sys
from typing import TYPE_CHECKING

from fxfuse.modules.bytecode import (
    CALLS,
    attribute_behind,
    following,
    is_none,
    leads_on,
    loads_and_stores,
    loads_of,
    loads_variable,
    steps_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_LATE = sys.version_info >= (3, 13)  # there, a mark lies on what is called, and not below it

# How many values a step takes, by the beginning of its name; the others take as many as their argument says.
_TAKES = {"LOAD_ATTR": 1, "LOAD_METHOD": 1, "LOAD": 0, "PUSH": 0, "UNARY": 1, "BINARY_SLICE": 3, "BINARY": 2}
_TAKES |= {"COMPARE": 2, "IS_OP": 2, "CONTAINS": 2, "DICT": 2, "LIST_EXTEND": 2, "LIST_TO": 1}
_TAKES |= {"FORMAT_WITH": 2, "FORMAT": 1, "CONVERT_VALUE": 1}


def is_called(steps: list[dis.Instruction], number: int) -> bool:
    """Whether what a step gives is called, and used for nothing else."""
    if _LATE:
        return _is_marked(steps[number]) or following(steps, number).opname == "PUSH_NULL"
    return call_of(steps, number) is not None


def _is_marked(step: dis.Instruction) -> bool:
    return step.opname in ("LOAD_GLOBAL", "LOAD_ATTR") and bool((step.arg or 0) & 1)


def call_of(steps: list[dis.Instruction], number: int) -> int | None:
    """Return the step that calls what another gives, None if that is used for anything else."""
    end, above = taker(steps, number)
    count = count_of(steps[end]) if end is not None else None
    return end if count is not None and above == count + _LATE else None


def taker(steps: list[dis.Instruction], number: int, above: int = 0) -> tuple[int | None, int]:
    """Return the step that takes what another gives, None if unknown, and how many values lie on that by then.

    Args:
        steps: the steps of a function.
        number: the one that gives it.
        above: how many values lie on it from the start.
    """
    above += int(_LATE and _is_marked(steps[number]))
    for end, step in enumerate(steps[number + 1 :], number + 1):
        count, taken = count_of(step), next((n for name, n in _TAKES.items() if step.opname.startswith(name)), None)
        if count is not None:
            taken = count + 1 + _LATE
        elif step.opname.startswith("BUILD_CONST"):
            taken = (step.arg or 0) + 1
        elif taken is None and step.opname.startswith("BUILD_"):
            taken = (step.arg or 0) * (2 if step.opname == "BUILD_MAP" else 1)
        if taken is None or above < taken:
            return end if taken is not None else None, above
        method = sys.version_info >= (3, 11) or step.opname == "CALL_METHOD"  # which take a value more
        above += dis.stack_effect(step.opcode, step.arg) if count is None else -count - method
    return None, above


CALLS_BY_COUNT = CALLS - {"CALL_FUNCTION_EX"}


def count_of(step: dis.Instruction) -> int | None:
    """Return how many values a step gives to what it calls, None if it calls nothing."""
    if step.opname == "CALL_FUNCTION_EX":
        return 1 + ((step.arg or 0) & 1)
    names = step.opname.endswith("_KW")  # of keyword arguments lie on these
    return (step.arg or 0) + names if step.opname in CALLS_BY_COUNT else None


def function_that_gets(steps: list[dis.Instruction], number: int) -> str:
    """Return the variable with a function that gets what a step loads as its first argument, empty for none."""
    before = number - 1 - (number > 0 and steps[number - 1].opname == "PUSH_NULL")
    if before < 0 or steps[before].opname != "LOAD_GLOBAL" or len(loads_and_stores(steps[number])) != 1:
        return ""
    return str(steps[before].argval) if is_called(steps, before) else ""


def is_name_of_call(steps: list[dis.Instruction], number: int) -> bool:
    """Whether a step loads a text that is the second argument of a call, and not a part of that."""
    text = steps[number % len(steps)]
    rest = list(itertools.takewhile(lambda step: step.opname in _PLAIN_LOADS, steps[number + 1 :]))
    call = steps[(number + 1 + len(rest)) % len(steps)]
    counted = call.opname in CALLS and call.arg == (3 if rest else 2)
    return text.opname == "LOAD_CONST" and type(text.argval) is str and counted


_PLAIN_LOADS = ("LOAD_CONST", "LOAD_FAST", "LOAD_ATTR", "LOAD_DEREF", "LOAD_FAST_LOAD_FAST")


def has_plain_name(steps: list[dis.Instruction], number: int) -> bool:
    """Whether a call of ``getattr`` has a text for the name."""
    end = call_of(steps, number)
    given = [step for n, step in enumerate(steps[:end]) if n > number and taker(steps, n)[0] == end]
    given = [step for step in given if step.opname != "PUSH_NULL"]
    name = given[1] if end is not None and len(given) == count_of(steps[end]) and len(given) > 1 else None
    return name is not None and name.opname == "LOAD_CONST" and type(name.argval) is str


def beginning_of_name(steps: list[dis.Instruction], number: int) -> str:
    """Return how the name begins that a call of ``getattr`` computes, empty if unknown: getattr(self, f"layer{i}")."""
    end, place = call_of(steps, number), number + 2
    text = steps[place % len(steps)]
    if end is None or count_of(steps[end]) != 2 or text.opname != "LOAD_CONST" or type(text.argval) is not str:
        return ""
    by, above = taker(steps, place)
    while by is not None and by != end and above == _parts(steps[by]) - 1:
        by, above = taker(steps, by)
    return re.split("[%{]", text.argval)[0] if by == end and not above else ""


def _parts(step: dis.Instruction) -> int:
    """Return of how many texts a step makes one that begins with the first, 0 if it does not."""
    joins = step.opname in ("BINARY_ADD", "BINARY_MODULO") or step.argrepr in ("+", "%")
    return step.arg or 0 if step.opname == "BUILD_STRING" else 2 * joins


ASKING = ("isinstance", "type", "id", "len")


def gives_away(steps: list[dis.Instruction], number: int, own: str, *, in_cell: bool) -> bool:
    """Whether a step loads the first parameter for anything but an attribute of it.

    Args:
        steps: the steps of a function.
        number: which of them.
        own: the first parameter.
        in_cell: whether functions inside use it too.
    """
    step, then, loads = steps[number], following(steps, number), loads_of(steps[number])
    if own not in loads or (in_cell and "FAST" in step.opname):  # for a function inside, as from Python 3.13 on
        return False
    gets = function_that_gets(steps, number)
    asks = gets in ASKING or (gets in ("getattr", "hasattr") and is_name_of_call(steps, number + 1))
    for_super = then.opname in CALLS and number > 1 and steps[number - 2].argval == "super"
    plain = leads_on(steps, number) or for_super or asks or is_called(steps, number)
    return own in loads[:-1] or not plain


def asks_for_kind(steps: list[dis.Instruction], number: int, kinds: Collection[str]) -> bool:
    """Whether parameters are asked for their dtype or the like alone.

    Example:
        >>> from fxfuse.modules.bytecode import steps_of
        >>> def forward(self, x): return x.to(next(self.parameters()).dtype)
        >>> steps = steps_of(forward.__code__)
        >>> (place,) = [n for n, step in enumerate(steps) if step.argval == "parameters"]
        >>> asks_for_kind(steps, place, ["dtype"])
        True
    """
    rest = [step for step in steps[number + 1 :] if step.opname != "PUSH_NULL"][:4]
    if len(rest) > 1 and rest[1].opname == "GET_ITER":  # all(p.dtype == x.dtype for p in self.parameters())
        inner = [step.argval for step in steps[:number] if hasattr(step.argval, "co_varnames")][-1:]
        through = [code for code in inner if code.co_varnames[:1] == (".0",) and not code.co_cellvars]
        if len(rest) < 3 or rest[2].opname not in CALLS or not through:
            return False
        return all(_only_asked(steps_of(through[0]), variable, kinds) for variable in through[0].co_varnames[1:])
    rest = [step for step in rest if not (step.opname == "LOAD_CONST" and step.argval is None)]  # next(..., None)
    if len(rest) < 3 or any(step.opname not in CALLS for step in rest[:2]):
        return False
    if rest[2].opname == "STORE_FAST":
        return _only_asked(steps, rest[2].argval, kinds)
    return attribute_behind(rest, 1) in kinds


def _only_asked(steps: list[dis.Instruction], variable: str, kinds: Collection[str]) -> bool:
    """Whether a variable is loaded for nothing but to ask for one of some attributes, or whether it is None."""
    loads = [n for n, step in enumerate(steps) if variable in loads_of(step)]
    alone = all(loads_of(steps[n]).count(variable) == 1 and loads_variable(steps[n], variable) for n in loads)
    return alone and all(attribute_behind(steps, n) in kinds or is_none(steps, n) for n in loads)
