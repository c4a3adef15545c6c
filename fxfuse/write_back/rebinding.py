"""Attributes and hooks that know modules, for the copies of these."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import types
import weakref
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.modules.lookup import contents_of, is_module
from fxfuse.source.syntax import is_name, nodes_of, parents_of, trees_of

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


def rebound(hooks: dict[int, Any], copy_of: Callable[[nn.Module], nn.Module]) -> dict[int, Any]:
    """Return hooks that know the new modules in place of the old, also by what is around them."""
    changed = {key: new for key, hook in hooks.items() if (new := _rebound(hook, copy_of)) is not hook}
    result = hooks.copy()
    result.update(changed)
    return result


def _rebound(hook: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    if isinstance(hook, weakref.ProxyTypes):  # what it stands for may be gone
        return hook
    if isinstance(hook, functools.partial):
        values = [hook.func, hook.args, hook.keywords]
        func, args, keywords = _rebound(hook.func, copy_of), *(exchanged(v, copy_of) for v in values[1:])
        same = all(new is old for new, old in zip((func, args, keywords), values, strict=True))
        return hook if same else functools.partial(func, *args, **keywords)
    if not inspect.isfunction(hook) or not depth:
        return exchanged(hook, copy_of)
    names = zip(hook.__code__.co_freevars, hook.__closure__ or (), strict=True)
    cells = tuple(_rebound_cell(hook, name, cell, copy_of, depth) for name, cell in names)
    defaults, named = exchanged(hook.__defaults__, copy_of), exchanged(hook.__kwdefaults__, copy_of)
    same = all(new is old for new, old in zip(cells, hook.__closure__ or (), strict=True))
    if same and defaults is hook.__defaults__ and named is hook.__kwdefaults__:
        return hook
    result = types.FunctionType(hook.__code__, hook.__globals__, hook.__name__, defaults, cells or None)
    result.__kwdefaults__ = named
    result.__module__ = hook.__module__
    result.__dict__.update(hook.__dict__)
    return result


def _rebound_cell(
    hook: Any, name: str, cell: types.CellType, copy_of: Callable[[nn.Module], nn.Module], depth: int
) -> types.CellType:
    """Return a variable around a hook for the new modules."""
    value = contents_of(cell)
    if isinstance(value, (dict, list)) and not _is_only_read(hook, name):
        return cell  # others look there for what the hook leaves
    new = _rebound(value, copy_of, depth - 1)
    if isinstance(value, dict):
        keys = {key: copy_of(key) for key in value if is_module(key)}
        if any(new_key is not key for key, new_key in keys.items()):
            items = [(keys.get(key, key), item) for key, item in new.items()]
            new = copy.copy(new)
            new.clear()
            new.update(items)
    return cell if new is value else types.CellType(new)


_READS = frozenset("get items keys values".split())


def _is_only_read(function: Any, name: str) -> bool:
    """Whether a function only looks things up in the container that a variable holds."""
    try:
        trees = trees_of(function)
    except (OSError, TypeError, SyntaxError):
        return False
    parents = [parents_of(tree)[node] for tree in trees for node in nodes_of(tree) if is_name(node, name)]
    return all(
        isinstance(p, (ast.Compare, ast.For))
        or (isinstance(p, ast.Subscript) and isinstance(p.ctx, ast.Load))
        or (isinstance(p, ast.Attribute) and p.attr in _READS)
        for p in parents
    )
