"""Who gets a value of a function's, besides the calls of it: ``checkpoint(self.block, x)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fxfuse.modules.bytecode import following, loads_and_stores, loads_variable, number_at, steps_of
from fxfuse.modules.calls import CALLS_BY_COUNT, call_of, count_of, is_called, taker

if TYPE_CHECKING:
    import dis
    from types import CodeType


class Receiver(NamedTuple):
    """Who gets a value as an argument.

    Attributes:
        path: a variable of the Python module with attributes, as in ``torch.utils.checkpoint.checkpoint``; or "", and a
            method of the first parameter.
        position: which argument it is, of those that are told by their place.
    """

    path: tuple[str, ...]
    position: int


def receivers_of(steps: list[dis.Instruction], number: int, own: str = "") -> frozenset[Receiver] | None:
    """Return who gets what a step gives: nobody if it is only called, as it is or as a variable; None if unknown.

    Args:
        steps: the steps of a function.
        number: which of them.
        own: the first parameter of it.

    Example:
        >>> from fxfuse.modules.bytecode import steps_of
        >>> def forward(self, x): return checkpoint(self.one, x) + self.two(x)
        >>> steps = steps_of(forward.__code__)
        >>> [receivers_of(steps, n, "self") for n, step in enumerate(steps) if step.argval in ("one", "two")]
        [frozenset({Receiver(path=('checkpoint',), position=0)}), frozenset()]
    """
    target = following(steps, number)
    if target.opname == "JUMP_FORWARD":  # layer = self.one if short else self.two
        number = number_at(steps, target.argval) - 1
    then = following(steps, number)
    return of_variable(steps, then.argval, own) if then.opname == "STORE_FAST" else _receivers(steps, number, own, 0)


def of_variable(steps: list[dis.Instruction], variable: str, own: str = "") -> frozenset[Receiver] | None:
    """Return who gets the value of a variable, whatever it is set to; see ``receivers_of``."""
    found = set[Receiver]()
    for number, step in enumerate(steps):
        uses = loads_and_stores(step)
        for place, use in enumerate(uses):
            if use == ("LOAD", variable):
                stored = any(kind != "LOAD" for kind, _ in uses[place:])
                gets = None if stored else _receivers(steps, number, own, len(uses) - 1 - place)
                if gets is None:
                    return None
                found |= gets
    return frozenset(found)


def receivers_of_parameter(code: CodeType, position: int, *, own: bool) -> frozenset[Receiver] | None:
    """Return who gets a parameter of a function, whose first one may be its ``own``; see ``receivers_of``."""
    name, first, steps = code.co_varnames[position], code.co_varnames[0], steps_of(code)
    own = own and ("STORE", first) not in [use for step in steps for use in loads_and_stores(step)]
    inside = name in code.co_cellvars  # of functions inside
    return None if inside else of_variable(steps, name, first if own and first not in code.co_cellvars else "")


def result_is_called(steps: list[dis.Instruction], number: int) -> bool:
    """Whether the result of a function that a step loads is only called: getattr(self, name)(x)."""
    end = call_of(steps, number)
    return end is not None and receivers_of(steps, end) == frozenset()


def _receivers(steps: list[dis.Instruction], number: int, own: str, above: int) -> frozenset[Receiver] | None:
    """Return who gets a value on which so many others lie that the same step gives."""
    if not above and is_called(steps, number):
        return frozenset()
    end, above = taker(steps, number, above)
    if end is None or steps[end].opname not in CALLS_BY_COUNT:
        return None
    function = next((n for n in range(number, -1, -1) if call_of(steps, n) == end), None)
    path = () if function is None else _path(steps, function, own)
    behind = 0 if function is None else function - len(path) + 2  # the first step of the path
    if any(step.is_jump_target for step in steps[behind : number + 1]):
        return None  # (one if short else two)(self.block, x)
    return frozenset([Receiver(path, (count_of(steps[end]) or 0) - 1 - above)]) if path else None


def _path(steps: list[dis.Instruction], number: int, own: str) -> tuple[str, ...]:
    """Return the path of a function that a step loads, none if it is unknown."""
    names: list[str] = []
    while number and steps[number].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        names.insert(0, steps[number].argval)
        number -= 1
    if steps[number].opname == "LOAD_GLOBAL":
        return (steps[number].argval, *names)
    return ("", *names) if own and loads_variable(steps[number], own) and len(names) == 1 else ()
