"""What a function mentions, from its code object: nothing is run, and no source is read."""

from __future__ import annotations

import dis
import inspect
import itertools
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Words by which code comes to modules, or to their tensors, without the names of these.
_MODULES = frozenset("children modules named_children named_modules get_submodule __dict__ _modules apply".split())
_TENSORS = frozenset("state_dict named_parameters named_buffers buffers get_parameter get_buffer".split())
_OPENING_FUNCTIONS = frozenset("eval exec vars locals attrgetter".split())
_CONTAINERS = frozenset(["Sequential", "ModuleList", "ModuleDict"])  # with elements in any case
_ASKED = frozenset("dtype device is_cuda".split())  # of the first parameter, by many
_SHAPES = _ASKED | frozenset("shape ndim size dim numel requires_grad".split())
SILENT = frozenset("CACHE PRECALL NOT_TAKEN EXTENDED_ARG KW_NAMES RESUME TO_BOOL".split())
_CALLS = frozenset("CALL CALL_FUNCTION CALL_KW CALL_FUNCTION_KW CALL_FUNCTION_EX".split())
_HANDLERS = frozenset("PUSH_EXC_INFO SETUP_FINALLY SETUP_WITH".split())  # the first from Python 3.11 on


class Mentions(NamedTuple):
    """The names in a function, and in the functions that it defines.

    Attributes:
        read: attributes of something, and texts.
        called: attributes that are called at once: ``x.conv(y)``.
        own_read: attributes of the first parameter: ``self.conv``.
        own_called: attributes of the first parameter that are called at once.
        stored: attributes of something that are set.
        own_stored: attributes of the first parameter that are set.
        variables: variables of the Python module, and Python modules that it imports.
        asked: those attributes of which it only asks for the shape, the dtype or the like.
        computed: attributes of which it gets attributes by computed names: ``getattr(self.config, name)``.
        opens: whether it may come to ``modules``, or to their ``tensors``, without their names, or ``sets`` attributes
            by computed names.
        own_opens: whether it may come to those in its first parameter, or to its ``children`` by computed names, or by
            those of its ``texts``.
        calls_values: whether it may call what an expression gives, such as an element of a list.
        calls_parameters: whether it may call what it is given.
    """

    read: frozenset[str]
    called: frozenset[str]
    own_read: frozenset[str]
    own_called: frozenset[str]
    stored: frozenset[str]
    own_stored: frozenset[str]
    variables: frozenset[str]
    asked: frozenset[str]
    computed: frozenset[str]
    opens: frozenset[str]
    own_opens: frozenset[str]
    calls_values: bool
    calls_parameters: bool

    @property
    def names(self) -> frozenset[str]:
        """All attributes and texts that are not set."""
        return self.read | self.called | self.own_read | self.own_called


_known: dict[int, tuple[CodeType, Mentions]] = {}  # by number: to compare codes takes longer than all the rest


def mentions(code: CodeType) -> Mentions:
    """Return what a function mentions.

    Example:
        >>> def forward(self, x): return self.bn(self.conv.weight * x)
        >>> found = mentions(forward.__code__)
        >>> sorted(found.own_called), sorted(found.own_read), sorted(found.read)
        (['bn'], ['conv'], ['weight'])
    """
    if id(code) not in _known:
        _known[id(code)] = code, _mentions(code)
    return _known[id(code)][1]


def wrappers_of(forward: Any) -> list[Any]:
    """Return the functions around a decorated one, the outermost first; torch's own do nothing but call it."""
    found = []
    while inspect.isfunction(forward) and hasattr(forward, "__wrapped__"):
        own = str(forward.__globals__.get("__name__")).partition(".")[0] == "torch"
        found += [] if own else [forward]
        forward = forward.__wrapped__
    return found


def steps_of(code: CodeType) -> list[dis.Instruction]:
    """Return the steps of a function, but for those that do nothing."""
    return [step for step in dis.get_instructions(code) if step.opname not in SILENT]


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of all that it defines."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from codes_in(value)


def handles_exceptions(code: CodeType) -> bool:
    """Whether a function may go on after an exception: it has a ``try`` or a ``with``."""
    return any(step.opname in _HANDLERS for step in dis.get_instructions(code))


def _mentions(code: CodeType) -> Mentions:
    first = code.co_varnames[0] if code.co_argcount else ""
    found: dict[str, set[Any]] = {name: set() for name in Mentions._fields[:-4]}  # the rest are no names
    called, values, kinds_of_names = set[str](), set[str](), set[str]()
    for inner in codes_in(code):
        steps = steps_of(inner)
        own = first if inner is code or first in inner.co_freevars else ""
        set_again = [step for step in steps if step.opname.startswith(("STORE_FAST", "STORE_DEREF"))]
        own = "" if any(last_variable(step) == own for step in set_again) else own
        found["read"] |= set(_texts(_constants(steps)))
        elements = set(_asking_for_elements(steps))
        for before, step, then in zip([None, *steps], steps, [*steps[1:], steps[0]], strict=False):
            kind = _kind(step, before, own)
            if kind and step.offset not in elements:
                found[kind].add(step.argval)
                (found["asked"] if then.argval in _SHAPES else values).add(step.argval)
        kinds_of_names |= _computed_names(steps, own, inner, found["computed"])
        called |= _called_values(inner, steps)
    found["asked"] -= values
    selves, others = found["own_read"] | found["own_called"], found["read"] | found["called"]
    asks = "next" in found["variables"] and not _ASKED.isdisjoint(selves | others)
    weights = _TENSORS if asks or "parameters" not in found["called"] | found["own_called"] else _TENSORS | {"parameters"}
    words = {"modules": _MODULES, "tensors": weights}
    kinds = [frozenset(kind for kind in words if not words[kind].isdisjoint(seen)) for seen in (others, selves)]
    if "others" in kinds_of_names or not _OPENING_FUNCTIONS.isdisjoint(found["variables"]):
        kinds[0] |= {"modules"}
    kinds[0] |= kinds_of_names & {"sets"}
    kinds[1] |= kinds_of_names & {"children", "texts", "sets_own"}
    rest: Any = (*map(frozenset, found.values()), *kinds, "value" in called, "parameter" in called)
    return Mentions(*rest)


def _asking_for_elements(steps: list[dis.Instruction]) -> Iterator[int]:
    """Yield where a function asks for the children of what it has just found to be a container, as for elements.

    Example:
        >>> def parts(x): return x.children() if isinstance(x, nn.Sequential) else x
        >>> mentions(parts.__code__).own_called
        frozenset()
    """
    steps = [step for step in steps if step.opname != "PUSH_NULL"]
    for number, step in enumerate(steps[:-8]):
        if step.opname != "LOAD_GLOBAL" or step.argval != "isinstance":
            continue
        value, *path, call, jump, again, children = steps[number + 1 :][: 8 if _is_torch(steps[number + 2]) else 7]
        names = [load.argval for load in path][-2:]
        loads = value.opname.startswith("LOAD_FAST") and (again.opname, again.argval) == (value.opname, value.argval)
        tests = call.opname in _CALLS and jump.opname.startswith("POP_JUMP") and jump.opname.endswith("IF_FALSE")
        asks = children.argval in ("children", "named_children") and not again.is_jump_target
        if loads and tests and asks and names[0] == "nn" and names[-1] in _CONTAINERS:
            yield children.offset


def _is_torch(step: dis.Instruction) -> bool:
    return step.opname == "LOAD_GLOBAL" and step.argval == "torch"


def _kind(step: dis.Instruction, before: dis.Instruction | None, own: str) -> str:
    """Return the attribute of Mentions to which a step adds its name, empty for none."""
    loaded = before is not None and before.opname.startswith(("LOAD_FAST", "LOAD_DEREF"))
    prefix = "own_" if own and loaded and before is not None and last_variable(before) == own else ""
    if step.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        at_once = step.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and (step.arg or 0) & 1)
        return prefix + ("called" if at_once else "read")
    if step.opname.startswith("LOAD_SUPER"):
        return "read"
    if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
        return prefix + "stored"
    if step.opname == "IMPORT_FROM":
        return "read"
    return "variables" if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME") else ""


def last_variable(step: dis.Instruction) -> Any:
    """Return the variable that a step loads or stores last."""
    return step.argval[-1] if isinstance(step.argval, tuple) else step.argval


def _constants(steps: list[dis.Instruction]) -> list[Any]:
    """Return the constants that a function loads, but for the names of keyword arguments."""
    pairs = zip(steps, [*steps[1:], steps[0]], strict=True)
    loads = [(step, then) for step, then in pairs if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return [step.argval for step, then in loads if then.opname not in ("CALL_KW", "CALL_FUNCTION_KW")]


def _texts(constants: Iterable[Any]) -> Iterator[str]:
    """Yield the names in texts, as in ``"layer1.conv"``."""
    for value in constants:
        if isinstance(value, str):
            parts = value.split(".")
            yield from parts if all(part.isidentifier() or part.isdigit() for part in parts) else ()
        elif isinstance(value, (tuple, frozenset)):
            yield from _texts(value)


def _computed_names(steps: list[dis.Instruction], own: str, code: CodeType, attributes: set[str]) -> set[str]:
    """Return what a function does with names that are no constants.

    It gets ``children`` of its first parameter, or those of its ``texts``, or attributes of ``others``, or ``sets`` some.

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
        end = next((n for n in range(number, len(steps)) if steps[n].opname in _CALLS), None)
        rest = [inner for inner in steps[number + 1 : end] if inner.opname != "PUSH_NULL"]
        if end is not None and step.argval == "getattr" and _has_plain_name(rest, steps[end].arg or 0):
            continue
        path = list(itertools.takewhile(lambda inner: inner.opname == "LOAD_ATTR", rest[1:]))
        of_own = bool(own and rest) and rest[0].opname.startswith("LOAD") and rest[0].argval == own and not path
        if step.argval != "getattr":
            found.add("sets_own" if of_own else "sets")
        elif path:
            attributes.add(path[-1].argval)
        else:
            name = rest[1] if len(rest) > 1 else None
            plain = name is not None and name.opname == "LOAD_FAST" and name.argval not in given and not makes_texts
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


def _called_values(code: CodeType, steps: list[dis.Instruction]) -> set[str]:
    """Return whether a function calls a ``parameter`` of its own, or a ``value`` that is no global and no method."""
    if sys.version_info < (3, 11):  # one would have to follow the stack
        return {"value"} if any(step.opname in _CALLS for step in steps) else set()
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    late, found = sys.version_info >= (3, 13), set[str]()
    for number, step in enumerate(steps):
        if step.opname == "PUSH_NULL":
            callee = steps[number - 1 if late else number + 1]
            rest = [step.opname for step in steps[number + 1 if late else number + 2 :]]
            loads = len(list(itertools.takewhile(lambda name: name in ("LOAD_FAST", "LOAD_CONST"), rest)))
            called = late or (loads < len(rest) and rest[loads] in _CALLS)  # nothing is made of it before
            plain = callee.opname.startswith("LOAD_FAST") and callee.argval in parameters and called
            variable = callee.opname == "LOAD_GLOBAL" and not (callee.arg or 0) & 1
            found |= {"parameter"} if plain else set() if variable else {"value"}
    return found
