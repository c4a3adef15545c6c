"""Classes derived from the user's: with an edited forward, or with a check before the forward.

A derived class exists once for each result, so it cannot be pickled by its name.  It is pickled by its recipe: the
class it was derived from, and what was changed.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import linecache
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fxfuse.modules.guards import require_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx, nn

_numbers = itertools.count()

# Under this name a class with a check keeps the forward behind it, which can be traced.
UNCHECKED = "_fxfuse_unchecked_forward"


@dataclass(frozen=True)
class OwnForward:
    """A forward that is the code of a graph.

    Attributes:
        source: the code, as torch.fx generated it.
        names: what the code refers to; Python modules are kept by name, since pickle cannot store them.
        modules: name in the code -> name of the Python module.
    """

    source: str
    names: dict[str, Any]
    modules: dict[str, str]

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Compile the code, so that tracebacks and ``inspect`` find its source."""
        del base
        filename = f"<fxfuse forward {next(_numbers)}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        scope = {**self.names, **{name: importlib.import_module(path) for name, path in self.modules.items()}}
        exec(compile(self.source, filename, "exec"), scope)  # noqa: S102 - the code that torch.fx generated
        return scope["forward"]


@dataclass(frozen=True)
class CheckedForward:
    """The user's forward, after a check that it is called with the arguments that the folds rest on."""

    expected: dict[str, Any]

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Wrap the forward of ``base``."""
        signature, expected = inspect.signature(base.forward), self.expected

        @torch.jit.unused  # which would compile the user's forward, without the check
        @functools.wraps(base.forward)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            for name, value in expected.items():
                require_value(bound.arguments[name], value, name)
            return base.forward(self, *args, **kwargs)

        return forward


class Change(Protocol):
    """What makes a derived class: pickled with it, so that it can be made again."""

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Return the forward of the class that is derived from ``base``."""


class Derived:
    """Marks a derived class, and lets its instances be pickled and copied by its recipe."""

    _fxfuse_recipe: tuple[Any, Change]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Store the recipe of the class and the attributes."""
        del protocol
        return _restore, (self._fxfuse_recipe,), self.__dict__


def with_forward(module: nn.Module, graph: fx.Graph, base: type[nn.Module]) -> nn.Module:
    """Return a module with the attributes of ``module``, of a class derived from ``base`` that runs ``graph``."""
    code = graph.python_code("self")
    names = {name: value for name, value in code.globals.items() if name != "__builtins__"}
    modules = {name: value.__name__ for name, value in names.items() if isinstance(value, ModuleType)}
    change = OwnForward(code.src, {n: v for n, v in names.items() if n not in modules}, modules)
    # The forward is replaced as a whole, so what an earlier pass derived is of no use any more.
    while issubclass(base, Derived):
        base = base.__bases__[1]
    return _with_class(module, (base, change))


def can_be_derived(cls: type[nn.Module]) -> bool:
    """Whether a class lets others be derived from it; a metaclass or ``__init_subclass__`` may refuse."""
    if type(cls) is not type or any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1]):
        try:
            type(cls.__name__, _bases(cls), {"__module__": cls.__module__})
        except TypeError:
            return False
    return True


def _bases(cls: type[nn.Module]) -> tuple[type, ...]:
    return (cls,) if issubclass(cls, Derived) else (Derived, cls)


def with_check(module: nn.Module, expected: dict[str, Any]) -> nn.Module:
    """Return a module with the attributes of ``module``, which raises unless it is called with ``expected``."""
    return with_change(module, CheckedForward(expected))


def with_change(module: nn.Module, change: Change) -> nn.Module:
    """Return a module with the attributes of ``module``, of a class derived from its class."""
    cls = type(module)
    base = cls._fxfuse_recipe if issubclass(cls, Derived) else cls
    return _with_class(module, (base, change))


def _with_class(module: nn.Module, recipe: tuple[Any, Change]) -> nn.Module:
    result = _restore(recipe)
    result.__dict__ = module.__dict__
    return result


def _restore(recipe: tuple[Any, Change]) -> nn.Module:
    return object.__new__(_derive(recipe))


def _derive(recipe: tuple[Any, Change]) -> type[nn.Module]:
    base, change = recipe
    base = _derive(base) if isinstance(base, tuple) else base
    body = {UNCHECKED: base.forward} if isinstance(change, CheckedForward) else {}
    body |= {"forward": change.forward(base), "_fxfuse_recipe": recipe, "__module__": base.__module__}
    return type(base.__name__, _bases(base), body)
