"""Functions that only call what they are given: whoever gives them a block uses it as if it called that."""

from __future__ import annotations

import inspect
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint

from fxfuse.modules.bytecode import steps_of
from fxfuse.modules.code import codes_in, mentions
from fxfuse.modules.origin import is_users
from fxfuse.modules.receivers import receivers_of_parameter

if TYPE_CHECKING:
    from fxfuse.capture.members import Members
    from fxfuse.modules.code import Mentions
    from fxfuse.modules.receivers import Receiver

_KEYWORDS = 0x08  # of co_flags: it takes any argument by a keyword


class OnlyCalls:
    """Says which functions only call what they are given.

    Attributes:
        methods: the names of the methods of which that was said.
    """

    def __init__(self, members: Members) -> None:
        """Look methods up by name among some."""
        self._members = members
        self.methods = set[str]()

    def settled(self, function: FunctionType, found: Mentions, owner: type | None) -> Mentions:
        """Return what a function mentions, where all that it claims, or computes, is either called or handed on.

        Args:
            function: the function.
            found: what it mentions.
            owner: the class of its first parameter, None for anything.
        """
        computed = [self._members.beginning(text) for text in found.begins]
        named = set[str]().union(*filter(None, computed))
        called, elements, handed = {*found.called, *named}, set(found.elements), set[str]()
        for kind, name, receivers in found.claimed:
            holds = all(self._only_calls(function, owner, receiver, set()) for receiver in receivers)
            (handed if not holds else called if kind == "called" else elements).add(name)
        return found._replace(
            called=frozenset(called),
            elements=frozenset(elements),
            read=found.read | handed,
            handed=found.handed | handed,
            claimed=frozenset(),
            behind=found.behind | {("", name) for name in named},
            hands_own=found.hands_own or None in computed,
        )

    def _only_calls(self, function: FunctionType, owner: type | None, receiver: Receiver, seen: set[Any]) -> bool:
        """Whether all that a function may give an argument to only calls that."""
        variable, *rest = receiver.path
        if not variable:
            methods = [] if owner is None else self._members.methods(rest[0], owner)
            self.methods.add(rest[0])
            passes = [self._passes(value, kind, function, receiver.position + 1, seen) for value, kind in methods]
            return bool(passes) and all(passes)
        value = None if variable in _set_globals(function) else function.__globals__.get(variable)
        for attribute in rest:
            value = vars(value).get(attribute) if isinstance(value, ModuleType) else None
        if value is checkpoint:
            return receiver.position == 0 and not by_keyword(function, inspect.unwrap(checkpoint))
        return self._passes(value, None, function, receiver.position, seen)

    def _passes(self, value: Any, owner: type | None, caller: FunctionType, position: int, seen: set[Any]) -> bool:
        """Whether a function that another calls does nothing with a parameter but to call it, or to give it to such."""
        if (value, position) in seen:
            return True
        code = value.__code__ if isinstance(value, FunctionType) and is_users(value) and not value.__dict__ else None
        if code is None or position >= code.co_argcount or code.co_flags & _KEYWORDS or by_keyword(caller, value):
            return False
        seen.add((value, position))
        gets = None if mentions(code).opens else receivers_of_parameter(code, position, own=owner is not None)
        return gets is not None and all(self._only_calls(value, owner, receiver, seen) for receiver in gets)


def _set_globals(function: FunctionType) -> set[str]:
    """Return the variables of its Python file that a function sets."""
    steps = (step for code in codes_in(function.__code__) for step in steps_of(code))
    return {str(step.argval) for step in steps if step.opname == "STORE_GLOBAL"}


def by_keyword(function: FunctionType, helper: FunctionType) -> bool:
    """Whether a function may pass a parameter to another by a keyword: ``run(x=x, m=self)``."""
    constants = [value for code in codes_in(function.__code__) for value in code.co_consts if isinstance(value, tuple)]
    code = helper.__code__
    return any(name in constant for name in code.co_varnames[: code.co_argcount] for constant in constants)
