"""Attributes that a function goes through only to call their elements."""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING

from fxfuse.modules.steps import CALLS, last_variable, loads_and_stores

if TYPE_CHECKING:
    from collections.abc import Iterator


def elements_called(steps: list[dis.Instruction], own: str) -> Iterator[int]:
    """Yield where a function reads an attribute of its first parameter, and does nothing but call its elements.

    Args:
        steps: the steps of the function.
        own: its first parameter.

    Example:
        >>> from fxfuse.modules.steps import steps_of
        >>> def forward(self, x, number):
        ...     for layer in self.layers:
        ...         x = layer(x)
        ...     return self.heads[number](x)
        >>> len(list(elements_called(steps_of(forward.__code__), "self")))
        2
    """
    plain = [step for step in steps if step.opname != "PUSH_NULL"]
    for number, step in enumerate(plain):
        if step.opname == "GET_ITER":
            sources, targets = _sources(plain[:number], own), _targets(plain[number + 2 :])
            pairs = zip(sources, targets, strict=True) if len(sources) == len(targets) else ()
            yield from (offset for offset, name in pairs if offset is not None and _only_called(steps, name))
    for number, (load, index, item) in enumerate(zip(steps, steps[1:], steps[2:], strict=False)):
        element = load.opname == "LOAD_ATTR" and index.opname.startswith(("LOAD_FAST", "LOAD_CONST"))
        element = element and (item.opname == "BINARY_SUBSCR" or item.argrepr == "[]") and number > 0
        if element and last_variable(steps[number - 1]) == own and _is_called(steps, number + 2):
            yield load.offset


def _sources(steps: list[dis.Instruction], own: str) -> list[int | None]:
    """Return what a loop goes through at once, by the steps before it: where an attribute is read, or None."""
    found: list[int | None] = []
    steps = [*steps]
    while steps:
        step = steps.pop()
        if step.opname == "LOAD_ATTR" and steps and last_variable(steps[-1]) == own:
            found.append(step.offset)
            found += [None for _ in loads_and_stores(steps.pop())[1:]]
        elif step.opname.startswith("LOAD_FAST"):
            found += [None for _ in loads_and_stores(step)]
        elif step.opname == "LOAD_GLOBAL" and step.argval in ("enumerate", "zip", "reversed"):
            found += [None] if step.argval == "enumerate" else []
        elif step.opname != "LOAD_CONST" and step.opname not in CALLS:
            # Anything but the end of the statement before may take the elements apart.
            return found[::-1] if step.opname.startswith(_ENDS) else []
    return found[::-1]


_ENDS = ("STORE", "POP", "JUMP", "FOR_ITER", "END_FOR", "DELETE", "MAKE_CELL", "COPY_FREE_VARS", "RETURN_GENERATOR")


def _targets(steps: list[dis.Instruction]) -> list[str]:
    """Return the variables that a loop sets, by the steps after it."""
    found: list[str] = []
    wanted = 1
    for step in steps:
        if step.opname == "UNPACK_SEQUENCE":
            wanted += step.argval - 1
            continue
        for kind, name in loads_and_stores(step):
            if kind != "STORE" or len(found) == wanted:
                return found if len(found) == wanted else []
            found.append(name)
    return []


def _only_called(steps: list[dis.Instruction], variable: str) -> bool:
    """Whether a variable is set once, and loaded for nothing but to call it."""
    sets = 0
    for number, step in enumerate(steps):
        uses = [use for use in loads_and_stores(step) if use in (("LOAD", variable), ("STORE", variable))]
        sets += ("STORE", variable) in uses
        loads = uses and uses[-1][0] != "STORE"
        if loads and not (last_variable(step) == variable and _is_called(steps, number)):
            return False
    return sets == 1


# How many values a step takes, by the beginning of its name: None for as many as its argument says.
_TAKES = {"LOAD_ATTR": 1, "LOAD_METHOD": 1, "LOAD": 0, "PUSH": 0, "UNARY": 1, "BINARY_SLICE": 3, "BINARY": 2}
_TAKES |= {"COMPARE": 2, "IS_OP": 2, "CONTAINS": 2, "BUILD_SLICE": 3, "BUILD_MAP": 99, "BUILD_CONST": 99}


def _is_called(steps: list[dis.Instruction], number: int) -> bool:
    """Whether what a step gives is called, and used for nothing else."""
    if sys.version_info >= (3, 13):
        return steps[number + 1].opname == "PUSH_NULL"
    above = 0  # how many values lie on it
    for step in steps[number + 1 :]:
        count, calls = step.arg or 0, step.opname in ("CALL", "CALL_FUNCTION", "CALL_METHOD")
        if calls and above == count:
            return True
        taken = next((taken for name, taken in _TAKES.items() if step.opname.startswith(name)), None)
        taken = count + 1 if calls else count if step.opname.startswith("BUILD_") and taken is None else taken
        if taken is None or above < taken:
            return False
        method = sys.version_info >= (3, 11) or step.opname == "CALL_METHOD"  # which take a value more
        above += -count - method if calls else dis.stack_effect(step.opcode, step.arg)
    return False
