"""What is exchanged in torch and in builtins while a trace runs.

``BatchNorm2d.forward`` raises unless its input has four axes.  A subclass that calls it cannot be traced for that
comparison alone, so while a trace is under way the check becomes a node of the graph.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from fxfuse.capture.proxies import Untraceable
from fxfuse.capture.symbolic_sizes import _ORIGINALS, number_class
from fxfuse.modules.guards import require_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

_AXES: dict[type[nn.Module], int | None] = {nn.BatchNorm1d: None, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}


@contextlib.contextmanager
def traced_checks() -> Iterator[None]:
    """Let the checks of torch's batch norms accept proxies, and record themselves."""
    before = {cls: cls.__dict__["_check_input_dim"] for cls in _AXES}
    enter = torch.autocast.__enter__
    try:
        torch.autocast.__enter__ = _refusing(enter)  # type: ignore[method-assign] # put back below
        for cls, axes in _AXES.items():
            cls._check_input_dim = _traceable(before[cls], axes)  # type: ignore[attr-defined] # put back below
        yield
    finally:
        torch.autocast.__enter__ = enter  # type: ignore[method-assign] # as it was
        for cls, check in before.items():
            cls._check_input_dim = check  # type: ignore[attr-defined] # as it was


def _refusing(enter: Callable[[torch.autocast], Any]) -> Callable[[torch.autocast], Any]:
    """A region that computes in another dtype, or insists on not doing so, is lost in a graph."""
    thread = threading.get_ident()

    @functools.wraps(enter)
    def entered(region: torch.autocast) -> Any:
        if threading.get_ident() == thread:
            raise Untraceable("it uses autocast in a part of its forward")
        return enter(region)

    return entered


def _traceable(check: Callable[..., None], axes: int | None) -> Callable[..., None]:
    def traced(self: nn.Module, input: Tensor) -> None:  # noqa: A002 - torch's name for it
        if not issubclass(type(input), fx.Proxy):
            check(self, input)
        elif axes is not None:
            require_rank(input, axes, type(self).__name__)

    return traced


_lock = threading.RLock()  # a trace that was interrupted ends when it is collected, which may be in the middle


_traces: set[object] = set()


@contextlib.contextmanager
def traced_extremes() -> Iterator[None]:
    """Make ``max`` and ``min`` of sizes nodes of the graph: the builtins would branch on which is larger."""
    trace = object()
    try:
        _traces.add(trace)
        _put_in_place()
        yield
    finally:
        _traces.discard(trace)
        _put_in_place()


def _put_in_place() -> None:
    """Put the functions in place while there are traces, of which several may run at once."""
    with _lock:
        for name, original in _ORIGINALS.items():
            setattr(builtins, name, _traced(original) if _traces else original)


def _traced(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def extreme(*args: Any, **kwargs: Any) -> Any:
        proxies = [a for a in args if issubclass(type(a), fx.Proxy)]  # isinstance would ask the proxy
        numbers = all(number_class(a.node) if issubclass(type(a), fx.Proxy) else type(a) in (int, float) for a in args)
        if proxies and len(args) > 1 and not kwargs and numbers:
            return proxies[0].tracer.create_proxy("call_function", original, args, {})
        return original(*args, **kwargs)

    return extreme
