"""The error that users see, and other errors told in a sentence."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    return line if len(line) <= LONGEST else line[: LONGEST + 1].rpartition(" ")[0].rstrip(",;:") + " ..."


@contextlib.contextmanager
def as_fuse_errors(task: str) -> Iterator[None]:
    """Let no other error out than a ``FuseError``: any other one is a fault of fxfuse, and says so.

    Args:
        task: what fails, as in "ResNet could not be fused".
    """
    try:
        yield
    except FuseError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise FuseError(
                f"{task}, since there is not enough memory ({sentence(error)}); nothing was changed. "
                "Free some, or use a device that has more."
            ) from error
        raise FuseError(
            f"{task} ({sentence(error)}); nothing was changed. This is a fault of fxfuse: please report it with the "
            "model; leaving out a part of the model may help until then."
        ) from error


LONGEST = 200
