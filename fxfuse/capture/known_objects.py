"""What functions and objects of the user's hold and know."""

from __future__ import annotations

import collections
import functools
import inspect
import sys
import weakref
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ATOMS, behind_proxy, contents_of, slots_of
from fxfuse.modules.origin import is_users

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DEPTH = 4  # of objects in objects


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield the functions of the user's behind a function, method, property or partial, and what is around them."""
    pending = [value]
    while pending:
        current = pending.pop()
        for name in ("fget", "func", "__func__", "__wrapped__"):
            inner = inspect.getattr_static(current, name, None) if not isinstance(current, type) else None
            inner = getattr(current, name, None) if inner is not None else None
            pending += [inner] if inner is not None else []
        if isinstance(current, FunctionType) and is_users(current):
            yield current


def values_of(function: FunctionType) -> Iterator[Any]:
    """Yield what a function knows: variables of its file and from around it, defaults."""
    found = mentions(function.__code__)
    for name in found.variables:
        value = function.__globals__.get(name, sys.modules.get(name))
        yield value if value is not None else sys.modules.get(f"{function.__globals__.get('__package__')}.{name}")
    yield from map(contents_of, function.__closure__ or ())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def objects_in(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an object and those that it holds, but not those in modules; what was ``seen`` only once."""
    seen = set() if seen is None else seen
    pending = [(value, _DEPTH)]
    while pending:
        current, depth = pending.pop()
        current = behind_proxy(current) if type(current) in weakref.ProxyTypes else current
        if type(current) in _PLAIN or (id(current) in seen and not isinstance(current, nn.Module)):
            continue
        seen.add(id(current))
        yield current
        pending += [(inner, depth - 1) for inner in _inside(current)] if depth else []


_PLAIN = ATOMS - {FunctionType, Tensor, nn.Parameter}


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, weakref.ReferenceType):
        return [value()]
    plain = isinstance(value, SimpleNamespace) or (
        is_users(type(value)) and not isinstance(value, (nn.Module, type, ModuleType, FunctionType, Tensor))
    )
    slots = slots_of(type(value)) if plain else ()
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, n, None) for n in slots)] if plain else ()
