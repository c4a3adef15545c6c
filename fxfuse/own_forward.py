"""A module of the user's class, of which the forward is an edited graph."""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.guards import require_value

if TYPE_CHECKING:
    from collections.abc import Callable

_numbers = itertools.count()


class OwnForward:
    """Marks a class that was derived from the user's for one edited forward, and makes it possible to pickle it."""

    _fxfuse_source: tuple[str, dict[str, Any]]

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401 - pickle's protocol
        """Store the class by its base and the source of its forward."""
        del protocol
        source, names = self._fxfuse_source
        stored = {name: _ModuleName(v.__name__) if isinstance(v, ModuleType) else v for name, v in names.items()}
        return _restore, (type(self).__mro__[2], source, stored), self.__dict__


class _ModuleName(str):
    """The name of a Python module, which pickle cannot store itself."""


def _restore(base: type[nn.Module], source: str, names: dict[str, Any]) -> nn.Module:
    import importlib

    found = {name: importlib.import_module(v) if isinstance(v, _ModuleName) else v for name, v in names.items()}
    cls = _derive(base, source, found)
    return cls.__new__(cls)


def with_forward(module: nn.Module, graph: fx.Graph, base: type[nn.Module]) -> nn.Module:
    """Return a module with the attributes of ``module``, of a subclass of ``base`` that runs ``graph``."""
    code = graph.python_code("self")
    names = {name: value for name, value in code.globals.items() if name != "__builtins__"}
    cls = _derive(base, code.src, names)
    result = cls.__new__(cls)
    result.__dict__ = module.__dict__
    return result


def _derive(base: type[nn.Module], source: str, names: dict[str, Any]) -> type[nn.Module]:
    body = {"forward": _compile(source, names), "_fxfuse_source": (source, names), "__module__": base.__module__}
    return type(base.__name__, (OwnForward, base), body)


def _compile(source: str, names: dict[str, Any]) -> Callable[..., Any]:
    """Compile a forward so that tracebacks and ``inspect`` find its source."""
    filename = f"<fxfuse forward {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope = dict(names)
    exec(compile(source, filename, "exec"), scope)  # noqa: S102 - the code that torch.fx generated
    return scope["forward"]  # type: ignore[no-any-return] # the generated function


class GuardedForward:
    """Marks a class that was derived from the user's to check arguments that its folds rest on."""

    _fxfuse_expected: dict[str, Any]

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401 - pickle's protocol
        """Store the class by its base and what it expects."""
        del protocol
        return _restore_guarded, (type(self).__mro__[2], self._fxfuse_expected), self.__dict__


def with_guard(module: nn.Module, expected: dict[str, Any]) -> nn.Module:
    """Return a module of a subclass of its class that is only called with the arguments expected."""
    result = _restore_guarded(type(module), expected)
    result.__dict__ = module.__dict__
    return result


def _restore_guarded(base: type[nn.Module], expected: dict[str, Any]) -> nn.Module:
    signature = inspect.signature(base.forward)

    @functools.wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the user's forward
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for name, value in expected.items():
            require_value(bound.arguments[name], value, name)
        return base.forward(self, *args, **kwargs)

    body = {"forward": forward, "_fxfuse_expected": expected, "__module__": base.__module__}
    cls = type(base.__name__, (GuardedForward, base), body)
    return cls.__new__(cls)
