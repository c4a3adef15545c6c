"""Attributes that a function goes through only to call their elements."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING

from fxfuse.modules.bytecode import CALLS, loads_and_stores, steps_of
from fxfuse.modules.calls import taker
from fxfuse.modules.receivers import Receiver, of_variable, receivers_of

if TYPE_CHECKING:
    import dis
    from collections.abc import Iterator


def elements_called(steps: list[dis.Instruction], own: str = "") -> Iterator[tuple[int, frozenset[Receiver]]]:
    """Yield where a function reads an attribute of a variable, and does nothing but call its elements.

    With each, who gets the elements besides.

    Example:
        >>> from fxfuse.modules.bytecode import steps_of
        >>> def forward(self, x, number):
        ...     for layer in self.layers:
        ...         x = layer(x)
        ...     return self.heads[number](x)
        >>> len(list(elements_called(steps_of(forward.__code__), "self")))
        2
    """
    for number, step in enumerate(steps):
        end = _subscript(steps, number)
        gets = receivers_of(steps, end, own) if end is not None else None  # of a part all elements are called
        if gets is not None:
            yield step.offset, gets
    whole = _without_slices(steps)
    plain = [step for step in whole if step.opname != "PUSH_NULL"]
    for number, step in enumerate(plain):
        if step.opname == "GET_ITER":
            within, start = _loop(plain, number)
            ends = () if within is plain else ("MAKE_FUNCTION", "SET_FUNCTION")
            sources, targets = _sources(plain[:number], *ends), _targets(within[start:])
            pairs = zip(sources, targets, strict=True) if len(sources) == len(targets) else ()
            within = whole if within is plain else within  # with the marks of calls
            for offset, name in pairs:
                gets = of_variable(within, name, own) if offset is not None else None
                if offset is not None and gets is not None:
                    yield offset, gets


def _subscript(steps: list[dis.Instruction], number: int) -> int | None:
    """Return the step that takes an element, or a part, of the attribute of a variable; None if there is none."""
    if steps[number].opname != "LOAD_ATTR" or not number or not steps[number - 1].opname.startswith(_VARIABLES):
        return None
    end, above = taker(steps, number)
    part = end is not None and steps[end].opname == "BINARY_SLICE" and above == 2
    item = end is not None and (steps[end].opname == "BINARY_SUBSCR" or steps[end].argrepr == "[]") and above == 1
    return end if part or item else None


def _without_slices(steps: list[dis.Instruction]) -> list[dis.Instruction]:
    """Return steps that go through whole attributes where the code goes through a part: ``self.layers[1:]``."""
    found = [*steps]
    for number in range(len(steps) - 1, 0, -1):
        while (end := _subscript(found, number)) is not None and "SLICE" in found[end].opname + found[end - 1].opname:
            del found[number + 1 : end + 1]
    return found


def _loop(steps: list[dis.Instruction], number: int) -> tuple[list[dis.Instruction], int]:
    """Return the steps in which a loop runs, and which is the first of it, by the step that makes an iterator.

    These are ``steps``, or those of a comprehension that is a function of its own; none if it is no loop.
    """
    for place in range(number + 1, len(steps)):
        step = steps[place]
        if step.opname == "FOR_ITER":
            return steps, place + 1
        if step.opname in CALLS:
            codes = [made.argval for made in steps[:number] if isinstance(made.argval, CodeType)][-1:]
            inner = steps_of(codes[0]) if codes and codes[0].co_name in _COMPREHENSIONS else []
            return inner, next((n + 1 for n, each in enumerate(inner) if each.opname == "FOR_ITER"), len(inner))
        if not step.opname.startswith(_OF_COMPREHENSIONS):
            break
    return [], 0


_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_OF_COMPREHENSIONS = ("LOAD_FAST_AND_CLEAR", "SWAP", "BUILD_", "COPY")  # from Python 3.12 on


def _sources(steps: list[dis.Instruction], *ends: str) -> list[int | None]:
    """Return what a loop goes through at once, by the steps before it: where an attribute is read, or None.

    Args:
        steps: those before it.
        ends: what these may follow on, besides the end of a statement.
    """
    found: list[int | None] = []
    steps = [*steps]
    while steps:
        step = steps.pop()
        key = step.argval == "items"
        if step.argval in ("items", "values") and steps and steps[-1].opname == "LOAD_ATTR":
            step = steps.pop()
        if step.opname == "LOAD_ATTR" and steps and steps[-1].opname.startswith(_VARIABLES):
            found += [step.offset, *([None] if key else [])]
            found += [None for _ in loads_and_stores(steps.pop())[1:]]
        elif step.opname.startswith("LOAD_FAST"):
            found += [None for _ in loads_and_stores(step)]
        elif step.opname == "LOAD_GLOBAL" and step.argval in ("enumerate", "zip", "reversed"):
            found += [None] if step.argval == "enumerate" else []
        elif step.opname != "LOAD_CONST" and step.opname not in CALLS:
            # Anything but the end of the statement before may take the elements apart.
            return found[::-1] if step.opname.startswith((*_ENDS, *ends)) else []
    return found[::-1]


_VARIABLES = ("LOAD_FAST", "LOAD_DEREF")
_ENDS: tuple[str, ...] = ("STORE", "POP", "JUMP", "FOR_ITER", "END_FOR", "DELETE", "MAKE_CELL", "COPY_FREE_VARS")
_ENDS += ("RETURN_GENERATOR",)


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
