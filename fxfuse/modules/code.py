"""What a function mentions, from its code object: nothing is run, and no source is read."""

from __future__ import annotations

import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from fxfuse.modules.bytecode import (
    CALLS,
    asking_for_elements,
    attribute_behind,
    following,
    is_of_super,
    leads_on,
    loads_and_stores,
    loads_variable,
    steps_of,
    texts_in,
)
from fxfuse.modules.calls import (
    ASKING,
    asks_for_kind,
    beginning_of_name,
    function_that_gets,
    gives_away,
    has_plain_name,
)
from fxfuse.modules.elements import elements_called
from fxfuse.modules.receivers import Receiver, receivers_of, result_is_called

if TYPE_CHECKING:
    import dis
    from collections.abc import Iterator

    Who = frozenset[Receiver] | None

# Words by which code comes to modules, or to their tensors, without the names of these.
_OPENING = frozenset(
    "children modules named_children named_modules get_submodule __dict__ _modules apply __getattr__ __getattribute__ "
    "state_dict named_parameters parameters named_buffers buffers get_parameter get_buffer _parameters _buffers "
    "__getstate__ __reduce__ __reduce_ex__ register_forward_hook register_forward_pre_hook __self__ f_locals".split()
)
_BY_TEXT = frozenset("getattr setattr attrgetter methodcaller get_submodule __getattr__ __getattribute__".split())
_OPENING_FUNCTIONS = frozenset("eval exec vars locals globals".split())
_ASKED = frozenset("dtype device is_cuda".split())  # of the first parameter, by many
_FACTS = frozenset("in_channels out_channels in_features out_features kernel_size stride dilation groups".split())
_SHAPES = _ASKED | frozenset("shape ndim size dim numel requires_grad is_floating_point".split())


VARIABLE = "="  # before the names of variables, among those of attributes


class Mentions(NamedTuple):
    """The names in a function, and in the functions that it defines.

    Attributes:
        read: attributes of something, and texts.
        called: attributes that are called at once: ``x.conv(y)``.
        elements: attributes of which it only calls the elements.
        passed: functions that get the first parameter as their own: ``run(self)``.
        stored: attributes that are set, of anything but the first parameter.
        own_stored: attributes of the first parameter that are set.
        variables: variables of the Python module, and Python modules that it imports.
        texts: those that are texts.
        behind: each attribute with the one of which it is an attribute, "" for none: ``self.config.size``; with the
            variable of the Python module behind VARIABLE: ``LOGGER.info``.
        asked: those attributes of which it only asks for the shape, the dtype or the like.
        others: all of these that are attributes of anything but the first parameter, and texts.
        claimed: those of which it would only call the value, or the elements, if all who get these did so too.
        handed: those with which it does anything but to call them and to read attributes: ``run(self.conv)``.
        begins: how the names begin of those attributes of the first parameter that it computes, and only calls.
        computes: whether it gets attributes by computed names: ``called`` if it only calls what it gets, or ``other``.
        opens: whether it may come to modules, or their tensors, without their names.
        opens_own: whether it may come to those in its first parameter so.
        hands_own: whether it does anything with that but to call it and to read and set attributes: ``run(self)``.
    """

    read: frozenset[str]
    called: frozenset[str]
    elements: frozenset[str]
    passed: frozenset[str]
    stored: frozenset[str]
    own_stored: frozenset[str]
    variables: frozenset[str]
    texts: frozenset[str]
    behind: frozenset[tuple[str, str]]
    asked: frozenset[str]
    others: frozenset[str]
    claimed: frozenset[tuple[str, str, frozenset[Receiver]]]
    handed: frozenset[str]
    begins: frozenset[str]
    computes: frozenset[str]
    opens: bool
    opens_own: bool
    hands_own: bool

    @property
    def names(self) -> frozenset[str]:
        """All attributes and texts that are not set."""
        return self.read | self.called | self.elements | {name for _, name, _ in self.claimed}


_known: dict[int, tuple[CodeType, Mentions]] = {}  # by number: to compare codes takes longer than all the rest


def mentions(code: CodeType) -> Mentions:
    """Return what a function mentions.

    Example:
        >>> def forward(self, x): return self.bn(self.conv.weight * x)
        >>> found = mentions(forward.__code__)
        >>> sorted(found.called), sorted(found.read)
        (['bn'], ['conv', 'weight'])
    """
    if id(code) not in _known:
        _known[id(code)] = code, _mentions(code)
    return _known[id(code)][1]


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of all that it defines."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from codes_in(value)


def _mentions(code: CodeType) -> Mentions:
    reader = _Reader(code)
    for inner in codes_in(code):
        reader.read(inner)
    return reader.mentions()


class _Reader:
    """Reads the steps of a function, and of those that it defines."""

    def __init__(self, code: CodeType) -> None:
        """Look at all names that the function has."""
        codes = list(codes_in(code))
        steps = [step for inner in codes for step in steps_of(inner)]
        stored = {name for step in steps for kind, name in loads_and_stores(step) if kind in ("STORE", "STORE_DEREF")}
        first = code.co_varnames[0] if code.co_argcount else ""
        self._first, self._code = "" if first in stored else first, code
        self._by_text = any(not _BY_TEXT.isdisjoint(inner.co_names) for inner in codes)
        self._found: dict[str, set[Any]] = {name: set() for name in Mentions._fields[:-3]}
        self._values: set[str] = set()
        self._opens: set[bool] = set()  # of its first parameter, or of others
        self._hands = first in stored

    def mentions(self) -> Mentions:
        """Return what was found."""
        self._found["asked"] -= self._values
        kinds = map(frozenset, self._found.values())
        rest: Any = (*kinds, False in self._opens, True in self._opens, self._hands)
        return Mentions(*rest)

    def read(self, code: CodeType) -> None:
        """Read a function."""
        found, steps = self._found, steps_of(code)
        own = self._first if code is self._code or self._first in code.co_freevars else ""
        in_cell = own in (*code.co_cellvars, *code.co_freevars)
        texts = set(texts_in(steps)) if self._by_text else set()
        for kind in ("read", "others", "handed", "texts"):
            found[kind] |= texts
        found["stored"] |= texts if "setattr" in code.co_names else set()
        found["behind"] |= {("", text) for text in texts}
        through = dict(elements_called(steps, own))
        skipped = set(asking_for_elements(steps))
        for number, step in enumerate(steps):
            if own and gives_away(steps, number, own, in_cell=in_cell):
                gets = function_that_gets(steps, number)
                called = gets == "getattr" and result_is_called(steps, number - 1)
                begins = beginning_of_name(steps, number - 1) if called else ""
                found["begins"] |= {begins} if begins else set()
                found["passed"] |= {gets} if gets and not begins else set()
                self._hands = self._hands or not gets
            if step.argval in ("getattr", "__getattr__") and not has_plain_name(steps, number):
                of_variable = following(steps, number).opname == "LOAD_GLOBAL"  # getattr(torch, name)
                how = "called" if result_is_called(steps, number) else "other"
                found["computes"] |= set() if of_variable else {how}
            # What a layer keeps is no use of it.
            if step.offset not in skipped and attribute_behind(steps, number) not in _FACTS:
                self._attribute(steps, number, own, through.get(step.offset))

    def _attribute(self, steps: list[dis.Instruction], number: int, own: str, through: Who) -> None:
        """Note the attribute, or the variable, that a step loads or stores; and who gets its elements."""
        found, step, before = self._found, steps[number], steps[number - 1] if number else steps[0]
        kind, gets = ("elements", through) if through is not None else _kind(steps, number, own)
        if not kind:
            return
        of_own = own != "" and number > 0 and loads_variable(before, own)
        kind = "own_stored" if kind == "stored" and of_own else kind
        of_own = of_own or is_of_super(steps, number)
        found["claimed" if gets else kind].add((kind, step.argval, gets) if gets else step.argval)
        found["others"] |= set() if of_own else {step.argval}
        place = {"LOAD_ATTR": "", "LOAD_GLOBAL": VARIABLE}.get(before.opname)
        found["behind"].add(("" if place is None else f"{place}{before.argval}", step.argval))
        (found["asked"] if attribute_behind(steps, number) in _SHAPES else self._values).add(step.argval)
        asks = _is_asked(steps, number)
        tests = following(steps, number).opname.startswith("POP_JUMP")  # if self.conv: ...
        ends = kind == "read" and not (asks or tests or leads_on(steps, number))
        found["handed"] |= {step.argval} if ends else set()
        of_call = (kind == "read" or bool(gets)) and before.opname in CALLS  # dict(signature(forward).parameters)
        asks = step.argval == "parameters" and (of_call or asks_for_kind(steps, number, _SHAPES))
        self._opens |= {of_own} if step.argval in _OPENING and not asks else set()
        self._opens |= {False} if kind == "variables" and step.argval in _OPENING_FUNCTIONS else set()


def _is_asked(steps: list[dis.Instruction], number: int) -> bool:
    """Whether what a step loads is only asked for its class or the like."""
    return number > 1 and function_that_gets(steps, number - 1) in ASKING


def _kind(steps: list[dis.Instruction], number: int, own: str) -> tuple[str, Who]:
    """Return the attribute of Mentions to which a step adds its name, empty for none, and who gets the value."""
    step = steps[number]
    at_once = step.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and (step.arg or 0) & 1)
    if step.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        gets = None if at_once or _is_asked(steps, number) else receivers_of(steps, number, own)
        return "called" if at_once or gets is not None else "read", gets
    if step.opname.startswith("LOAD_SUPER") or step.opname == "IMPORT_FROM":
        return "read", None
    if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
        return "stored", None
    return "variables" if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME") else "", None
