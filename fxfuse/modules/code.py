"""What a function mentions, from its code object: nothing is run, and no source is read."""

from __future__ import annotations

import dis
import inspect
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from fxfuse.modules.elements import elements_called
from fxfuse.modules.steps import (
    asking_for_elements,
    called_values,
    computed_names,
    given_to,
    last_variable,
    steps_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Words by which code comes to modules, or to their tensors, without the names of these.
_MODULES = frozenset("children modules named_children named_modules get_submodule __dict__ _modules apply".split())
_TENSORS = frozenset("state_dict named_parameters named_buffers buffers get_parameter get_buffer".split())
_OPENING_FUNCTIONS = frozenset("eval exec vars locals attrgetter".split())
_ASKED = frozenset("dtype device is_cuda".split())  # of the first parameter, by many
_SHAPES = _ASKED | frozenset("shape ndim size dim numel requires_grad".split())
_HANDLERS = frozenset("PUSH_EXC_INFO SETUP_FINALLY SETUP_WITH".split())  # the first from Python 3.11 on


class Mentions(NamedTuple):
    """The names in a function, and in the functions that it defines.

    Attributes:
        read: attributes of something, and texts.
        called: attributes that are called at once: ``x.conv(y)``.
        own_read: attributes of the first parameter: ``self.conv``.
        own_called: attributes of the first parameter that are called at once.
        own_elements: attributes of the first parameter of which it only calls the elements.
        stored: attributes of something that are set.
        own_stored: attributes of the first parameter that are set.
        variables: variables of the Python module, and Python modules that it imports.
        asked: those attributes of which it only asks for the shape, the dtype or the like.
        computed: attributes of which it gets attributes by computed names: ``getattr(self.config, name)``.
        own_given: functions that get the first parameter itself: ``run(self)``; "" for anything else that does.
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
    own_elements: frozenset[str]
    stored: frozenset[str]
    own_stored: frozenset[str]
    variables: frozenset[str]
    asked: frozenset[str]
    computed: frozenset[str]
    own_given: frozenset[str]
    opens: frozenset[str]
    own_opens: frozenset[str]
    calls_values: bool
    calls_parameters: bool

    @property
    def names(self) -> frozenset[str]:
        """All attributes and texts that are not set."""
        return self.read | self.called | self.own_read | self.own_called | self.own_elements


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
        asking, through = set(asking_for_elements(steps)), set(elements_called(steps, own))
        for before, step, then in zip([None, *steps], steps, [*steps[1:], steps[0]], strict=False):
            kind = _kind(step, before, own)
            if kind and step.offset not in asking:
                found["own_elements" if step.offset in through else kind].add(step.argval)
                (found["asked"] if then.argval in _SHAPES else values).add(step.argval)
        kinds_of_names |= computed_names(steps, own, inner, found["computed"])
        called |= called_values(inner, steps)
        found["own_given"] |= set(given_to(steps, own)) if own else set()
    found["asked"] -= values
    once = sum(step.argval == "parameters" for inner in codes_in(code) for step in steps_of(inner)) == 1
    selves = found["own_read"] | found["own_called"] | found["own_elements"]
    others = found["read"] | found["called"]
    asks = once and "next" in found["variables"] and not _ASKED.isdisjoint(selves | others)
    weights = set() if asks else {"parameters"} & (found["called"] | found["own_called"])
    words = {"modules": _MODULES, "tensors": _TENSORS | weights}
    kinds = [frozenset(kind for kind in words if not words[kind].isdisjoint(seen)) for seen in (others, selves)]
    if "others" in kinds_of_names or not _OPENING_FUNCTIONS.isdisjoint(found["variables"]):
        kinds[0] |= {"modules"}
    kinds[0] |= kinds_of_names & {"sets"}
    kinds[1] |= kinds_of_names & {"children", "texts", "sets_own"}
    rest: Any = (*map(frozenset, found.values()), *kinds, "value" in called, "parameter" in called)
    return Mentions(*rest)


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
