"""The error that users see, and other errors told in a sentence."""

from __future__ import annotations

import torch


class FuseError(Exception):
    """The only exception that users of fxfuse see: what was wrong, what was left untouched, what to do.

    Example:
        >>> import torch
        >>> from fxfuse import FuseError, fx_fuse
        >>> try:
        ...     fx_fuse(torch.nn.BatchNorm2d(8))
        ... except FuseError as error:
        ...     print(str(error).partition(",")[0])
        BatchNorm2d and every other norm of the model is in training mode
    """


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; for that of the CPU torch raises no class of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


def sentence(error: Exception) -> str:
    """Return the first line of an error, cut between two words where it is long."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {_short(lines[0])}" if lines else type(error).__name__


def _short(line: str) -> str:
    if len(line) <= LONGEST:
        return line
    words = line[: LONGEST + 1].rpartition(" ")[0].rstrip(",;:")
    return f"{words or line[:LONGEST]} ..."  # one long word is cut all the same


LONGEST = 200
