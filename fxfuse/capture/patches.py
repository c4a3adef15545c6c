"""``max`` and ``min`` of sizes, as nodes of the graph: the builtins would branch on which of the sizes is larger.

While a model is traced, the Python files of the functions that it runs have variables of these names, as torch.fx does
it for functions of ``math``.  The builtins themselves stay as they are, for every thread.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.capture.known_objects import functions_of, values_of
from fxfuse.capture.symbolic_sizes import ORIGINALS, number_class
from fxfuse.modules.code import mentions
from fxfuse.modules.origin import is_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FunctionType


@contextlib.contextmanager
def traced_extremes(root: nn.Module) -> Iterator[None]:
    """Make ``max`` and ``min`` of sizes nodes of the graph, in the functions that a model may run."""
    classes: set[Any] = {type(module) for module in root.modules()}
    scopes = {id(scope): scope for cls in classes for scope in _scopes_of(cls)}
    placed = [(scope, name) for scope in scopes.values() for name in ORIGINALS if name not in scope]
    try:
        for scope, name in placed:
            scope[name] = _traced(ORIGINALS[name])
        yield
    finally:
        for scope, name in placed:
            scope.pop(name, None)


@functools.lru_cache(maxsize=1024)
def _scopes_of(cls: Any) -> list[dict[str, Any]]:
    """Return the variables of the Python files in which methods of a class, or what they call, use these names."""
    pending = [f for base in cls.__mro__ if is_users(base) for v in vars(base).values() for f in functions_of(v)]
    seen: set[FunctionType] = set()
    found: list[dict[str, Any]] = []
    while pending:
        function = pending.pop()
        if function in seen:
            continue
        seen.add(function)
        if not ORIGINALS.keys().isdisjoint(mentions(function.__code__).variables):
            found.append(function.__globals__)
        pending += [inner for value in values_of(function) for inner in functions_of(value)]
    return found


def _traced(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def extreme(*args: Any, **kwargs: Any) -> Any:
        proxies = [a for a in args if issubclass(type(a), fx.Proxy)]  # isinstance would ask the proxy
        numbers = all(number_class(a.node) if issubclass(type(a), fx.Proxy) else type(a) in (int, float) for a in args)
        if proxies and len(args) > 1 and not kwargs and numbers:
            return proxies[0].tracer.create_proxy("call_function", original, args, {})
        return original(*args, **kwargs)

    return extreme
