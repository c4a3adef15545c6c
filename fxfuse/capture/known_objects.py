"""What functions and objects of the user's hold and know."""

from __future__ import annotations

import gc
import sys
import weakref
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ATOMS, behind_proxy, contents_of
from fxfuse.modules.origin import is_users, package_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PLAIN = ATOMS - {FunctionType, type(len), Tensor, nn.Parameter}
# Objects of Python's own that do nothing but hold others.
_HOLDERS = frozenset("builtins functools collections types weakref _weakrefset".split())


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield the functions of the user's that an object holds: a function, what is around it, a property, a table."""
    pending, seen = [value], set[int]()
    while pending:
        for held in objects_in(pending.pop(), seen):
            if isinstance(held, FunctionType) and is_users(held):
                yield held
            wrapped = held.__dict__.get("__wrapped__") if isinstance(held, FunctionType) else None
            pending += [wrapped] if wrapped is not None else []


def values_of(function: FunctionType) -> Iterator[Any]:
    """Yield what a function knows: variables of its file and from around it, and defaults."""
    for name in mentions(function.__code__).variables:
        value = function.__globals__.get(name, sys.modules.get(name))
        yield value if value is not None else sys.modules.get(f"{function.__globals__.get('__package__')}.{name}")
    yield from map(contents_of, function.__closure__ or ())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def reached_from(values: Iterable[Any]) -> tuple[list[FunctionType], list[Any]]:
    """Return the functions of the user's in some objects, with all that these know, and all objects on the way."""
    pending, functions, objects, seen = [*values], dict[FunctionType, None](), list[Any](), set[int]()
    while pending:
        for held in objects_in(pending.pop(), seen):
            objects.append(held)
            if isinstance(held, FunctionType) and is_users(held):
                functions[held] = None
                pending += [*values_of(held), held.__dict__.get("__wrapped__")]
            elif callable(held) and is_users(type(held)) and not isinstance(held, (type, nn.Module)):
                pending.append(type(held).__call__)
    return [*functions], objects


def objects_in(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an object and those that it holds, but not those in modules; what was ``seen`` only once."""
    seen, pending = set() if seen is None else seen, [value]
    while pending:
        current = pending.pop()
        current = behind_proxy(current) if type(current) in weakref.ProxyTypes else current
        if type(current) in _PLAIN or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += _inside(current)


def modules_known(value: Any) -> list[nn.Module]:
    """Return the modules in an object, and those that the functions in it know."""
    held = [*objects_in(value)]
    for each in [each for each in held if isinstance(each, FunctionType)]:
        # Of one that torch put around a layer, ``torch.vmap(self.conv)``, no more counts than that layer.
        known = values_of(each) if is_users(each) else map(contents_of, each.__closure__ or ())
        held += [inner for value in known for inner in objects_in(value)]
    return [each for each in held if isinstance(each, nn.Module)]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, weakref.ReferenceType):
        return [value()]
    closed = isinstance(value, (nn.Module, type, ModuleType, FunctionType, Tensor))
    if closed or not (package_of(type(value)) in _HOLDERS or is_users(type(value))):
        return ()
    return gc.get_referents(value)
