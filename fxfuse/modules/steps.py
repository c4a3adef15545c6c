"""Single steps of a function's byte code, and what they do together."""

from __future__ import annotations

import dis
import itertools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

SILENT = frozenset("CACHE PRECALL NOT_TAKEN EXTENDED_ARG KW_NAMES RESUME TO_BOOL".split())
CALLS = frozenset("CALL CALL_FUNCTION CALL_KW CALL_FUNCTION_KW CALL_FUNCTION_EX".split())
_CONTAINERS = frozenset(["Sequential", "ModuleList", "ModuleDict"])  # with elements in any case


def steps_of(code: CodeType) -> list[dis.Instruction]:
    """Return the steps of a function, but for those that do nothing."""
    return [step for step in dis.get_instructions(code) if step.opname not in SILENT]


def last_variable(step: dis.Instruction) -> Any:
    """Return the variable that a step loads or stores last."""
    return step.argval[-1] if isinstance(step.argval, tuple) else step.argval


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
    for value, none, test in zip(steps, steps[1:], [*steps[2:], steps[0]], strict=False):
        is_none = "NONE" in none.opname or (
            none.opname == "LOAD_CONST" and none.argval is None and "IS_OP" in test.opname
        )
        if value.opname == "LOAD_ATTR" and is_none:
            yield value.offset
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
    if "FAST" not in step.opname:
        return [("CALL" if step.opname.startswith("CALL") else step.opname, step.argval)]
    kinds = [part for part in step.opname.split("_") if part in ("LOAD", "STORE")]
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return list(zip(kinds, names, strict=False))


def computed_names(steps: list[dis.Instruction], own: str, code: CodeType, attributes: set[str]) -> set[str]:
    """Return what a function does with names that are no constants.

    It gets ``children`` of its first parameter, or those of its ``texts``, or attributes of ``others``, or ``sets``
    some.

    Args:
        steps: the steps of the function.
        own: its first parameter.
        code: the function.
        attributes: takes those of which it gets attributes.
    """
    found = set[str]()
    given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    makes_texts = any(step.opname.startswith(("FORMAT", "BUILD_STRING")) for step in steps)
    for number, step in enumerate(steps):
        if not step.opname.startswith("LOAD") or step.argval not in ("getattr", "setattr", "delattr"):
            continue
        end = next((n for n in range(number, len(steps)) if steps[n].opname in CALLS), None)
        rest = [inner for inner in steps[number + 1 : end] if inner.opname != "PUSH_NULL"]
        if end is not None and step.argval == "getattr" and _has_plain_name(rest, steps[end].arg or 0):
            continue
        loads = [load for inner in rest for load in loads_and_stores(inner)]
        path = list(itertools.takewhile(lambda load: load[0] == "LOAD_ATTR", loads[1:]))
        of_own = bool(own and loads) and loads[0][0].startswith("LOAD") and loads[0][1] == own and not path
        if step.argval != "getattr":
            found.add("sets_own" if of_own else "sets")
        elif path:
            attributes.add(path[-1][1])
        else:
            kind, name = loads[1] if len(loads) > 1 else ("", None)
            plain = kind == "LOAD" and name not in given and not makes_texts
            found.add("others" if not of_own else "texts" if plain else "children")
    return found


def _has_plain_name(steps: list[dis.Instruction], count: int) -> bool:
    """Whether the second of some arguments is a text, going by the steps that load them."""
    depth = 0
    for number, step in enumerate(steps[:-1]):
        depth += dis.stack_effect(step.opcode, step.arg)
        then, rest = steps[number + 1], steps[number + 2 :]
        if depth == 1 and then.opname == "LOAD_CONST" and isinstance(then.argval, str):
            return (count == 2 and not rest) or (count == 3 and all(s.opname.startswith("LOAD") for s in rest))
    return False


def called_values(code: CodeType, steps: list[dis.Instruction]) -> set[str]:
    """Return whether a function calls a ``parameter`` of its own, or a ``value`` that is no global and no method."""
    if sys.version_info < (3, 11):  # one would have to follow the stack
        return {"value"} if any(step.opname in CALLS for step in steps) else set()
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    late, found = sys.version_info >= (3, 13), set[str]()
    for number, step in enumerate(steps):
        if step.opname == "PUSH_NULL":
            callee = steps[number - 1 if late else number + 1]
            rest = [step.opname for step in steps[number + 1 if late else number + 2 :]]
            loads = len(list(itertools.takewhile(lambda name: name in ("LOAD_FAST", "LOAD_CONST"), rest)))
            called = late or (loads < len(rest) and rest[loads] in CALLS)  # nothing is made of it before
            plain = callee.opname.startswith("LOAD_FAST") and callee.argval in parameters and called
            variable = callee.opname == "LOAD_GLOBAL" and not (callee.arg or 0) & 1
            found |= {"parameter"} if plain else set() if variable else {"value"}
    return found


_OF_ATTRIBUTES = ("COPY", "DUP_TOP", "LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR")
_COMPARED = ("IS_OP", "COMPARE_OP", "CONTAINS_OP", "PUSH_NULL")


def given_to(steps: list[dis.Instruction], own: str) -> Iterator[str]:
    """Yield the function of the file that gets a variable itself, for each time; "" if anything else gets it.

    Example:
        >>> def forward(self, x): return run(self, self.conv(x)), Tools(1, self)
        >>> list(given_to(steps_of(forward.__code__), "self"))
        ['run', '']
    """
    for number, step in enumerate(steps):
        names = [name for kind, name in loads_and_stores(step) if kind.startswith("LOAD")]
        if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) or own not in names:
            continue
        before, then = steps[max(0, number - 2) : number], steps[(number + 1) % len(steps)]
        if names[-1] == own and then.opname in _OF_ATTRIBUTES + _COMPARED:
            continue
        if before and before[-1].opname == "PUSH_NULL" and names == [own]:
            before.pop()
            if not before or before[-1].opname != "LOAD_GLOBAL":
                continue  # it is called itself
        function = before[-1] if before and names == [own] else step
        yield function.argval if function.opname == "LOAD_GLOBAL" else ""
