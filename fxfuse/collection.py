"""The collection of garbage, which waits while a graph is worked on."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def collection_waits() -> Iterator[None]:
    """Do not look for garbage inside of the block.

    A pass makes a few objects for each node, and next to no garbage in circles.  Each full collection looks at every
    object of the process, which for large models takes longer than all the rest.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
