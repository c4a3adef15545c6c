"""What functions and objects know: the objects that they come to by names."""

from __future__ import annotations

import collections
import functools
import inspect
import logging
import types
import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.modules.lookup import ATOMS, REGISTRIES, contents_of, is_module
from fxfuse.source.syntax import plain_function

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_FIXED = (type, types.ModuleType, types.BuiltinFunctionType, logging.Logger)
_SETTINGS = ATOMS - {types.FunctionType, types.BuiltinFunctionType, Tensor, nn.Parameter}
_DEPTH = 6  # of objects in objects


def is_torchs(value: Any) -> bool:
    """Whether a function or class is one of torch's."""
    return str(getattr(value, "__module__", "")).startswith("torch.")


def is_setting(value: Any) -> bool:
    """Whether a value is a number, a text or the like, and leads to nothing."""
    return type(value) in _SETTINGS


def is_mutable(value: Any) -> bool:
    """Whether a value can be changed, so that others who hold it see that."""
    return not is_setting(value) and not isinstance(value, (*_FIXED, nn.Module)) and not inspect.isroutine(value)


def captured(function: Any) -> dict[str, Any]:
    """Return what a function knows by names: from around it, as defaults, and variables of its file."""
    code = function.__code__
    known = {name: function.__globals__[name] for name in names_of(code) if name in function.__globals__}
    known |= zip(code.co_freevars, map(contents_of, function.__closure__ or ()), strict=True)
    defaults = function.__defaults__ or ()
    known |= dict(zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True))
    return known | (function.__kwdefaults__ or {})


@functools.cache
def names_of(code: types.CodeType) -> frozenset[str]:
    """Return all names and texts in a function, and in those that it defines."""
    inner = [names_of(value) for value in code.co_consts if isinstance(value, types.CodeType)]
    texts = [value for value in code.co_consts if isinstance(value, str)]
    return frozenset(code.co_names).union(code.co_freevars, texts, *inner)


def functions_of(cls: type) -> list[Any]:
    """Return the functions of a class of the user's that may run in a forward."""
    own = [base for base in cls.__mro__ if base not in nn.Module.__mro__ and not is_torchs(base)]
    found = [plain_function(value) for base in own for name, value in vars(base).items() if name != "__init__"]
    return [function for function in found if function is not None]


def names_in_class(cls: type) -> frozenset[str]:
    """Return all names and texts in the functions of a class, and in those of their file that they mention."""
    functions = functions_of(cls)
    called = [v for f in functions for v in captured(f).values() if inspect.isfunction(v) and not is_torchs(v)]
    return frozenset[str]().union(*(names_of(function.__code__) for function in (*functions, *called)))


def members(module: nn.Module) -> list[Any]:
    """Return the objects that a module holds as attributes."""
    return [value for name, value in module.__dict__.items() if name not in REGISTRIES]


def all_in(value: Any) -> Iterator[Any]:
    """Yield an object, what it holds, and what dictionaries in it hold."""
    yield value
    if isinstance(value, (nn.Module, *_FIXED, *weakref.ProxyTypes)) or is_setting(value):
        return
    try:
        held = list(_inside(value, None))
    except Exception:  # noqa: BLE001 - objects of the user's may do anything; this one holds nothing that can be had
        return
    for inner in held:
        yield inner
        yield from inner.values() if isinstance(inner, dict) else ()


def modules_in(value: Any, names: Collection[str] | None, model: Collection[nn.Module]) -> set[nn.Module]:
    """Return the modules of a model to which an object leads.

    Args:
        value: the object.
        names: the attributes that are asked for; None for all.
        model: the modules of the model.
    """
    found: set[nn.Module] = set()
    seen: dict[int, Any] = {}
    pending = [(value, names, _DEPTH)]
    while pending:
        current, asked, depth = pending.pop()
        if id(current) in seen or not depth:
            continue
        seen[id(current)] = current  # held, so that the number stays its own
        if is_module(current):
            found |= {module for module in current.modules() if module in model}
        elif isinstance(current, Tensor):
            found |= {m for m in model if any(t is current for t in (*m._parameters.values(), *m._buffers.values()))}
        else:
            pending += [(inner, asked, depth - 1) for inner in _inside(current, asked)]
    return found


def _inside(value: Any, names: Collection[str] | None) -> Iterable[Any]:
    """Return what an object holds; of its attributes those that are asked for."""
    held = _items(value)
    if held is not None:
        return held
    if inspect.ismethod(value):
        return [*_known_by(value.__func__), value.__self__]
    if inspect.isfunction(inspect.unwrap(value)):
        return _known_by(value)
    return [] if isinstance(value, type) and is_torchs(value) else _attributes(value, names)


def _items(value: Any) -> Iterable[Any] | None:
    """Return what a container holds, None for what is none."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, _SEQUENCES):
        return value
    if isinstance(value, weakref.ReferenceType):
        return [value()]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    alone = is_setting(value) or isinstance(value, (Tensor, types.BuiltinFunctionType))
    return () if alone else None


def _known_by(function: Any) -> Iterable[Any]:
    plain = inspect.unwrap(function)
    return [] if is_torchs(plain) else captured(plain).values()


def _attributes(value: Any, names: Collection[str] | None) -> list[Any]:
    """Return the attributes of an object or class, its class's among them."""
    bases = value.__mro__ if isinstance(value, type) else (*type(value).__mro__,)
    found: dict[str, Any] = {}
    for base in reversed(bases):
        found |= vars(base) if not is_torchs(base) and base is not object else {}
    found |= {} if isinstance(value, type) else getattr(value, "__dict__", {})
    asked = found if names is None or is_torchs(type(value)) else _with_methods(names, found)
    return [_value(value, found[name], name) for name in asked if name in found]


def _value(owner: Any, held: Any, name: str) -> Any:
    return getattr(owner, name, None) if isinstance(held, types.MemberDescriptorType) else held  # of ``__slots__``


def _with_methods(names: Collection[str], attributes: dict[str, Any]) -> set[str]:
    """Return the attributes that are asked for, also by methods and properties among them."""
    asked, pending = set[str](), set(names)
    while pending:
        asked |= pending
        functions = [plain_function(attributes[name]) for name in pending if name in attributes]
        pending = {n for f in functions if f is not None for n in names_of(f.__code__)} - asked
    return asked
