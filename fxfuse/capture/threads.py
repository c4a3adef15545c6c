"""What other threads do while a model is traced.

For a trace, torch.fx and this package exchange methods of ``nn.Module`` and other classes, for all threads of the
process.  A second trace at the same time would take those of the first for torch's own, and leave them in place for
ever, so it waits.  What other threads run in the meantime is theirs, and is let alone.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from torch import fx
from torch.fx import _symbolic_trace
from torch.utils._pytree import tree_leaves

from fxfuse.capture.proxies import Untraceable
from fxfuse.modules.code import handles_exceptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_P = ParamSpec("_P")
_R = TypeVar("_R")
_torchs: Any = _symbolic_trace
_locks = {"trace": threading.RLock()}


def _renew() -> None:
    """Let a new process trace: what held the lock is not in it."""
    _locks["trace"] = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def one_at_a_time(trace: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function that traces wait until no other thread does."""

    @functools.wraps(trace)
    def alone(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _locks["trace"]:
            return trace(*args, **kwargs)

    return alone


def _is_under_way() -> bool:
    read = getattr(_torchs, "_get_is_fx_tracing", None)  # from torch 2.14 on
    return bool(_torchs._is_fx_tracing_flag if read is None else read())


def _say_under_way(value: bool) -> None:  # noqa: FBT001 - private
    write = getattr(_torchs, "_set_is_fx_tracing", None)
    if write is None:
        _torchs._is_fx_tracing_flag = value
    else:
        write(value)


_known: dict[int, tuple[CodeType, bool]] = {}  # by number: to compare codes takes longer than all the rest


def _catches(frame: FrameType) -> bool:
    """Whether the function of a frame, if it is the user's, may go on after exceptions."""
    code = frame.f_code
    if id(code) not in _known:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        _known[id(code)] = code, package not in ("torch", "fxfuse") and handles_exceptions(code)
    return _known[id(code)][1]


class OneThread(fx.Tracer):
    """A tracer that records only what its own thread does.

    Attributes:
        failure: why what was traced is wrong, None as long as it is not.
    """

    failure: Untraceable | None = None

    def __init__(self, **options: Any) -> None:
        """Trace in this thread; ``options`` are those of ``torch.fx.Tracer``."""
        super().__init__(**options)
        self._thread = threading.get_ident()
        self._others = weakref.WeakSet(threading.enumerate())  # one that begins later may be the forward's own

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace; where torch.fx is interrupted as it begins or ends, it goes on saying that a trace is under way."""
        before = _is_under_way()
        try:
            return super().trace(root, concrete_args)
        finally:
            _say_under_way(before)

    def is_bystander(self, *computed: Any) -> bool:
        """Whether this is another thread that was there before, and what it computes with has nothing to do with us."""
        other = threading.get_ident() != self._thread and threading.current_thread() in self._others
        return other and not any(issubclass(type(leaf), fx.Proxy) for leaf in tree_leaves(computed))

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **more: Any) -> Any:
        """Make a node; another thread has modes of its own (autocast, gradients), which no graph can have."""
        if threading.get_ident() != self._thread:
            self.failure = Untraceable("its forward computes in other threads")
        self.note_catch(sys._getframe(1))
        return super().create_proxy(kind, target, args, kwargs, *others, **more)

    def note_catch(self, frame: FrameType | None) -> None:
        """Remember that tracing failed if a function of the forward that is under way goes on after exceptions."""
        starts = (type(self).call_module.__code__, fx.Tracer.trace.__code__)
        while frame is not None and frame.f_code not in starts:
            if "autocast" in frame.f_code.co_name or "autocast" in frame.f_code.co_names:
                self.failure = Untraceable("it uses autocast in a part of its forward")
            elif _catches(frame):
                self.failure = Untraceable("it catches exceptions")
            frame = frame.f_back

    def require_no_failure(self, changed: str = "") -> None:
        """Raise if what was traced is wrong, or has ``changed`` something."""
        if self.failure is not None:
            raise self.failure
        if changed:
            raise Untraceable(changed)
