"""Single steps of a function's byte code, and what they do together."""

from __future__ import annotations

import dis
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

SILENT = frozenset("CACHE PRECALL NOT_TAKEN EXTENDED_ARG KW_NAMES RESUME TO_BOOL".split())
CALLS = frozenset("CALL CALL_FUNCTION CALL_METHOD CALL_KW CALL_FUNCTION_KW CALL_FUNCTION_EX".split())
_CONTAINERS = frozenset(["Sequential", "ModuleList", "ModuleDict"])  # with elements in any case


def steps_of(code: CodeType) -> list[dis.Instruction]:
    """Return the steps of a function, but for those that do nothing."""
    return [step for step in dis.get_instructions(code) if step.opname not in SILENT]


def number_at(steps: list[dis.Instruction], offset: int) -> int:
    """Return the number of the step at an offset, as a jump says it, or of the next that does something."""
    return next((number for number, step in enumerate(steps) if step.offset >= offset), len(steps))


def last_variable(step: dis.Instruction) -> Any:
    """Return the variable that a step loads or stores last."""
    return step.argval[-1] if isinstance(step.argval, tuple) and "FAST" in step.opname else step.argval


def asking_for_elements(steps: list[dis.Instruction]) -> Iterator[int]:
    """Yield where a function asks for a number of elements, for None, or for children of what it found a container.

    Example:
        >>> def parts(x): return x.children() if isinstance(x, nn.Sequential) else x
        >>> len(list(asking_for_elements(steps_of(parts.__code__))))
        1
    """
    steps = [step for step in steps if step.opname != "PUSH_NULL"]
    for function, _, value, call in zip(steps, steps[1:], steps[2:], steps[3:], strict=False):
        counts = function.opname == "LOAD_GLOBAL" and function.argval == "len" and call.opname in CALLS
        if counts and value.opname == "LOAD_ATTR":
            yield value.offset
    yield from (
        step.offset for number, step in enumerate(steps) if step.opname == "LOAD_ATTR" and is_none(steps, number)
    )
    for number, step in enumerate(steps[:-8]):
        if step.opname != "LOAD_GLOBAL" or step.argval != "isinstance":
            continue
        value, *path, call, jump, again, children = steps[number + 1 :][: 8 if _is_torch(steps[number + 2]) else 7]
        names = [load.argval for load in path][-2:]
        loads = value.opname.startswith("LOAD_FAST") and (again.opname, again.argval) == (value.opname, value.argval)
        tests = call.opname in CALLS and jump.opname.startswith("POP_JUMP") and jump.opname.endswith("IF_FALSE")
        asks = children.argval in ("children", "named_children") and not again.is_jump_target
        if loads and tests and asks and names[0] == "nn" and names[-1] in _CONTAINERS:
            yield children.offset


def _is_torch(step: dis.Instruction) -> bool:
    return step.opname == "LOAD_GLOBAL" and step.argval == "torch"


def loads_and_stores(step: dis.Instruction) -> list[tuple[str, Any]]:
    """Return what a step does with variables, one after the other; some steps do two things at once."""
    if step.opname == "LOAD_FAST_AND_CLEAR":
        return []  # the variable is put aside while a comprehension has its own of that name
    if "FAST" not in step.opname:
        return [("CALL" if step.opname.startswith("CALL") else step.opname, step.argval)]
    kinds = [part for part in step.opname.split("_") if part in ("LOAD", "STORE")]
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return list(zip(kinds, names, strict=False))


def following(steps: list[dis.Instruction], number: int) -> dis.Instruction:
    """Return the step behind another: of the last one, the first."""
    return steps[(number + 1) % len(steps)]


def attribute_behind(steps: list[dis.Instruction], number: int) -> Any:
    """Return the attribute that is taken, or set, of what a step loads; None if it is used for anything else."""
    then = following(steps, number)
    return then.argval if then.opname in _OF_ATTRIBUTES else None


def loads_variable(step: dis.Instruction, variable: str) -> bool:
    """Whether a step loads the value of a variable last."""
    return loads_of(step)[-1:] == [variable]


def loads_of(step: dis.Instruction) -> list[Any]:
    """Return the variables of which a step loads the values: of a function, of one around it, or of a class's body."""
    return [name for kind, name in loads_and_stores(step) if kind == "LOAD" or _OF_CELL.fullmatch(kind)]


def is_none(steps: list[dis.Instruction], number: int) -> bool:
    """Whether what a step loads is only compared with None."""
    none, test = following(steps, number), following(steps, number + 1)
    compared = none.opname == "LOAD_CONST" and none.argval is None and "IS_OP" in test.opname
    return "NONE" in none.opname or compared


def leads_on(steps: list[dis.Instruction], number: int) -> bool:
    """Whether a step loads a value for an attribute of it alone."""
    rest = [step.opname for step in steps[number + 1 : number + 3]]
    rest = rest[1:] if rest[:1] in (["COPY"], ["DUP_TOP"]) else rest  # self.count += 1
    return bool(rest) and rest[0] in _OF_ATTRIBUTES


_OF_CELL = re.compile("LOAD_.*DEREF")
_OF_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR")


def is_of_super(steps: list[dis.Instruction], number: int) -> bool:
    """Whether a step loads an attribute of ``super()``."""
    before = [step for step in steps[max(0, number - 4) : number] if step.opname != "PUSH_NULL"][-2:]
    called = len(before) == 2 and before[0].argval == "super" and before[1].opname in CALLS and not before[1].arg
    return called or steps[number].opname.startswith("LOAD_SUPER")


def texts_in(steps: list[dis.Instruction]) -> Iterator[str]:
    """Yield the names in the texts that a function loads, but for those of keyword arguments."""
    pairs = zip(steps, [*steps[1:], steps[0]], strict=True)
    loads = [(step, then) for step, then in pairs if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return _names([step.argval for step, then in loads if then.opname not in ("CALL_KW", "CALL_FUNCTION_KW")])


def _names(constants: Iterable[Any]) -> Iterator[str]:
    """Yield the names in texts, as in ``"layer1.conv"``."""
    for value in constants:
        if isinstance(value, str):
            parts = value.split(".")
            yield from parts if all(part.isidentifier() or part.isdigit() for part in parts) else ()
        elif isinstance(value, (tuple, frozenset)):
            yield from _names(value)
