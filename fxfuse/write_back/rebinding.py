"""What is bound to modules, bound to the copies of these: attributes that hold modules, methods and hooks."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.modules.lookup import behind_proxy, contents_of, is_module
from fxfuse.modules.origin import as_written

if TYPE_CHECKING:
    from collections.abc import Callable

_DEPTH = 5  # of containers in containers; deeper ones, and cycles, are left as they are


def exchanged(value: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    """Return an attribute that holds modules with the new ones in place of the old."""
    if is_module(value):
        return copy_of(value)
    if not depth:
        return value
    if isinstance(value, dict):
        pairs = {exchanged(k, copy_of, 0): exchanged(v, copy_of, depth - 1) for k, v in value.items()}
        if not _same([*pairs, *pairs.values()], [*value, *value.values()]):
            value = copy.copy(value)  # of the same class, with its attributes
            value.clear()
            value.update(pairs)
    elif type(value) in (list, tuple, set, frozenset) or (isinstance(value, tuple) and hasattr(value, "_make")):
        items = [exchanged(item, copy_of, depth - 1) for item in value]
        make: Any = getattr(value, "_make", type(value))
        return value if _same(items, value) else make(items)
    elif type(value) is weakref.ref and isinstance(referred := value(), nn.Module):
        return value if copy_of(referred) is referred else weakref.ref(copy_of(referred))
    elif (proxied := behind_proxy(value)) is not None:
        return value if copy_of(proxied) is proxied else weakref.proxy(copy_of(proxied))
    return rebound(value, copy_of, depth)


def rebound(value: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    """Return a hook, or another function, with the new modules in place of those that it is bound to or knows."""
    if isinstance(value, types.MethodType):
        new = rebound(value.__self__, copy_of, depth)
        return value if new is value.__self__ else types.MethodType(value.__func__, new)
    if isinstance(value, functools.partial):
        keywords = {name: exchanged(held, copy_of, depth - 1) for name, held in value.keywords.items()}
        parts = [rebound(value.func, copy_of, depth - 1), *exchanged(value.args, copy_of, depth)]
        same = _same([*parts, *keywords.values()], [value.func, *value.args, *value.keywords.values()])
        made: Any = type(value)
        return value if same else made(*parts, **keywords)
    if not isinstance(value, types.FunctionType) or not depth:
        return copy_of(value) if is_module(value) else value
    written = as_written(value)
    if written is not None:  # its compiled code is that of the original
        new = rebound(written, copy_of, depth - 1)
        return value if new is written else new
    return _function(value, copy_of, depth - 1)


def _function(function: types.FunctionType, copy_of: Callable[[nn.Module], nn.Module], depth: int) -> Any:
    """Return a function with the new modules in the variables around it and in its defaults."""

    def known(value: Any) -> Any:
        # A table of the names of modules follows; other containers stay the user's own, who may write into them.
        table = type(value) is dict and all(is_module(k) and type(v) is str for k, v in value.items())
        own = isinstance(value, (dict, list, tuple, set)) and not table
        return value if own else exchanged(value, copy_of, depth)

    cells, defaults, keywords = function.__closure__ or (), function.__defaults__ or (), function.__kwdefaults__ or {}
    held = [*map(contents_of, cells), *defaults, *keywords.values()]
    if _same(new := list(map(known, held)), held):
        return function
    around, given = new[: len(cells)], new[len(cells) : len(cells) + len(defaults)]
    closure = [types.CellType(a) if a is not b else c for a, b, c in zip(around, held, cells, strict=False)]
    made = (function.__code__, function.__globals__, function.__name__, tuple(given) or None, tuple(closure) or None)
    result = types.FunctionType(*made)
    result.__kwdefaults__ = dict(zip(keywords, new[len(cells) + len(defaults) :], strict=True)) or None
    result.__dict__.update({name: exchanged(value, copy_of, depth) for name, value in function.__dict__.items()})
    return result


def _same(new: list[Any], old: Any) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))
