"""Attributes that hold modules, and hooks that are methods of modules, for the copies of these."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.modules.lookup import contents_of, is_module

if TYPE_CHECKING:
    from collections.abc import Callable

_DEPTH = 5  # of containers in containers; deeper ones, and cycles, are left as they are


def exchanged(value: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    """Return an attribute that holds modules with the new ones in place of the old."""
    if is_module(value):
        return copy_of(value)
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        new = copy_of(value.__self__)
        return value if new is value.__self__ else types.MethodType(value.__func__, new)
    if depth and isinstance(value, dict):
        changed = {k: new for k, v in value.items() if (new := exchanged(v, copy_of, depth - 1)) is not v}
        if changed:
            value = copy.copy(value)  # of the same class, with its attributes
            value.update(changed)
    elif depth and type(value) in (list, tuple):
        items = [exchanged(item, copy_of, depth - 1) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    return value


def rebound(hook: Any, copy_of: Callable[[nn.Module], nn.Module]) -> Any:
    """Return a hook that has the new modules in place of those that it is bound to, or has in variables around it."""
    if isinstance(hook, functools.partial):
        keywords = {name: exchanged(value, copy_of) for name, value in hook.keywords.items()}
        function: Any = rebound(hook.func, copy_of)
        return functools.partial(function, *exchanged(hook.args, copy_of), **keywords)
    if not inspect.isfunction(hook):
        return exchanged(hook, copy_of)
    cells = hook.__closure__ or ()
    held = [*map(contents_of, cells), *(hook.__defaults__ or ()), *(hook.__kwdefaults__ or {}).values()]
    if all(_known(value, copy_of) is value for value in held):
        return hook
    pairs = [(cell, _known(contents_of(cell), copy_of)) for cell in cells]
    new = tuple(cell if known is contents_of(cell) else types.CellType(known) for cell, known in pairs)
    defaults = exchanged(hook.__defaults__, copy_of)
    result = types.FunctionType(hook.__code__, hook.__globals__, hook.__name__, defaults, new or None)
    result.__kwdefaults__ = exchanged(hook.__kwdefaults__, copy_of)
    result.__dict__.update(hook.__dict__)
    return result


def _known(value: Any, copy_of: Callable[[nn.Module], nn.Module]) -> Any:
    """Return what a hook knows with the new modules: a module, or a table of the names of modules.

    Other dictionaries stay the user's own, since a hook may write into them what it finds.
    """
    if is_module(value):
        return copy_of(value)
    if type(value) is dict and value and all(is_module(k) and type(v) is str for k, v in value.items()):
        return {**value, **{copy_of(module): name for module, name in value.items()}}
    return value
