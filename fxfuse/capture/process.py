"""What a trace changes in the process while it runs, and what other threads do meanwhile.

For a trace, torch.fx and this package exchange methods of ``nn.Module`` and other classes, for all threads of the
process.  A second trace at the same time would take those of the first for torch's own, and leave them in place for
ever, so it waits.  What other threads run in the meantime is theirs, and is let alone.

``max`` and ``min`` of sizes become nodes of the graph: the builtins would branch on which of the sizes is larger.  The
Python files of the functions that a model runs have variables of these names meanwhile, as torch.fx does it for
functions of ``math``.  The builtins themselves stay as they are, for every thread.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.utils._pytree import tree_leaves

from fxfuse.capture.known_objects import reached_from
from fxfuse.capture.proxies import Untraceable
from fxfuse.capture.symbolic_sizes import ORIGINALS, number_class
from fxfuse.modules.code import mentions
from fxfuse.modules.origin import home_of, is_users
from fxfuse.modules.untraceable_bytecode import handles_exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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

    def __init__(self) -> None:
        """Trace in this thread."""
        super().__init__(autowrap_modules=(math,), param_shapes_constant=True)
        self._thread = threading.get_ident()
        self._others = weakref.WeakSet(threading.enumerate())  # one that begins later may be the forward's own

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace; where torch.fx is interrupted as it begins or ends, it goes on saying that a trace is under way."""
        before = _is_under_way()
        try:
            return super().trace(root, concrete_args)
        finally:
            _say_under_way(before)

    @contextlib.contextmanager
    def computing(self, root: nn.Module) -> Iterator[None]:
        """Make functions that ask for sizes nodes of the graph: ``max``, ``min`` and others that the model names."""
        with traced_extremes(root) as found:
            if not found.math:  # to exchange all of them takes as long as a short trace
                self._autowrap_search.clear()
                self._autowrap_function_ids.clear()
            if found.deforms:
                ops = sys.modules["torchvision.ops"]
                self._autowrap_search.append(ops)
                self._autowrap_function_ids.add(id(ops.deform_conv2d))
            yield

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


@contextlib.contextmanager
def compiled_as_written() -> Iterator[None]:
    """Trace what is compiled as it was written, where torch.fx raises; no compiler is imported for that."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch._dynamo.config.patch(error_on_nested_fx_trace=False):
        yield


# -- functions of numbers


class Numbers(NamedTuple):
    """How the methods of a class, and what they call, compute with numbers.

    Attributes:
        scopes: the variables of the Python files in which ``max`` or ``min`` is named.
        math: whether ``math``, or a function of it, is named.
        deforms: whether torchvision, or its deformable convolution, is named.
    """

    scopes: tuple[dict[str, Any], ...]
    math: bool
    deforms: bool


@functools.lru_cache(maxsize=1024)
def _numbers_of(cls: Any) -> Numbers:
    values = [value for base in cls.__mro__ if is_users(base) for value in vars(base).values()]
    functions, known = reached_from([v for v in values if not isinstance(v, type)]) if values else ([], [])
    using = [f for f in functions if not ORIGINALS.keys().isdisjoint(mentions(f.__code__).variables)]
    scopes, homes = [function.__globals__ for function in using], set(map(home_of, known))
    deforms = not homes.isdisjoint(("torchvision", "torchvision.ops", "torchvision.ops.deform_conv"))
    return Numbers(tuple(scopes), "math" in homes, deforms)


@contextlib.contextmanager
def traced_extremes(root: nn.Module) -> Iterator[Numbers]:
    """Make ``max`` and ``min`` of sizes nodes of the graph; yield what all classes of the model name."""
    classes: set[Any] = {type(module) for module in root.modules()}
    found = [_numbers_of(cls) for cls in classes]
    scopes = {id(scope): scope for numbers in found for scope in numbers.scopes}
    placed = [(scope, name) for scope in scopes.values() for name in ORIGINALS if name not in scope]
    try:
        for scope, name in placed:
            scope[name] = _traced(ORIGINALS[name])
        yield Numbers((), any(numbers.math for numbers in found), any(numbers.deforms for numbers in found))
    finally:
        for scope, name in placed:
            scope.pop(name, None)


def _traced(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def extreme(*args: Any, **kwargs: Any) -> Any:
        proxies = [a for a in args if issubclass(type(a), fx.Proxy)]  # isinstance would ask the proxy
        numbers = all(number_class(a.node) if issubclass(type(a), fx.Proxy) else type(a) in (int, float) for a in args)
        if proxies and len(args) > 1 and not kwargs and numbers:
            return proxies[0].tracer.create_proxy("call_function", original, args, {})
        return original(*args, **kwargs)

    return extreme
