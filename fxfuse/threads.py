"""What other threads do while a model is traced.

For a trace, torch.fx and this package exchange methods of ``nn.Module`` and other classes, for all threads of the
process.  A second trace at the same time would take those of the first for torch's own, and leave them in place for
ever, so it waits.  What other threads run in the meantime is theirs, and is let alone.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_R = TypeVar("_R")
_lock = threading.RLock()


def one_at_a_time(trace: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function that traces wait until no other thread does."""

    @functools.wraps(trace)
    def alone(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _lock:
            return trace(*args, **kwargs)

    return alone
