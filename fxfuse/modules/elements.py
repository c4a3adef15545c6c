"""Attributes that a function goes through only to call their elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.modules.calls import is_called, only_called
from fxfuse.modules.steps import CALLS, loads_and_stores

if TYPE_CHECKING:
    import dis
    from collections.abc import Iterator


def elements_called(steps: list[dis.Instruction]) -> Iterator[int]:
    """Yield where a function reads an attribute of a variable, and does nothing but call its elements.

    Example:
        >>> from fxfuse.modules.steps import steps_of
        >>> def forward(self, x, number):
        ...     for layer in self.layers:
        ...         x = layer(x)
        ...     return self.heads[number](x)
        >>> len(list(elements_called(steps_of(forward.__code__))))
        2
    """
    plain = [step for step in steps if step.opname != "PUSH_NULL"]
    for number, step in enumerate(plain):
        if step.opname == "GET_ITER":
            sources, targets = _sources(plain[:number]), _targets(plain[number + 2 :])
            pairs = zip(sources, targets, strict=True) if len(sources) == len(targets) else ()
            yield from (offset for offset, name in pairs if offset is not None and only_called(steps, name))
    for number, (load, index, item) in enumerate(zip(steps, steps[1:], steps[2:], strict=False)):
        element = load.opname == "LOAD_ATTR" and index.opname.startswith(("LOAD_FAST", "LOAD_CONST"))
        element = element and (item.opname == "BINARY_SUBSCR" or item.argrepr == "[]") and number > 0
        if element and steps[number - 1].opname.startswith(_VARIABLES) and is_called(steps, number + 2):
            yield load.offset


def _sources(steps: list[dis.Instruction]) -> list[int | None]:
    """Return what a loop goes through at once, by the steps before it: where an attribute is read, or None."""
    found: list[int | None] = []
    steps = [*steps]
    while steps:
        step = steps.pop()
        if step.opname == "LOAD_ATTR" and steps and steps[-1].opname.startswith(_VARIABLES):
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


_VARIABLES = ("LOAD_FAST", "LOAD_DEREF")
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
