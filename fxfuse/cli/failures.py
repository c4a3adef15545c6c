"""What fails in torch or in code of the user's, as one sentence, with nothing printed beside it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING

from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SIZE = "--input-size sets another shape: that of one sample, without the batch"


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def explained(problem: str, advice: str) -> Iterator[None]:
    """Make one sentence of whatever torch raises, and keep it from printing graphs and tracebacks beside it.

    Args:
        problem: what is not possible.
        advice: what to do about it.

    Raises:
        FuseError: inside of the block something was raised.
    """
    try:
        with quiet():
            yield
    except FuseError:
        raise
    except Exception as error:
        raise FuseError(f"{problem} ({_root(error)}), so nothing was done; {advice}") from error


@contextlib.contextmanager
def running(name: str, sample: Tensor, advice: str) -> Iterator[None]:
    """Make one sentence of what a model raises on an input.

    Args:
        name: the model.
        sample: the input.
        advice: how another input is given.

    Raises:
        FuseError: inside of the block something was raised.
    """
    described = f"{str(sample.dtype).removeprefix('torch.')} of shape {tuple(sample.shape)}"
    with explained(f'"{name}" does not run on {described}', advice):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, logged or warned of."""
    level = logging.root.manager.disable
    nowhere = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _root(error: BaseException) -> str:
    """The first sentence of the error that led to the others, which say only that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.split(r"(?<=[\w)])[.!] (?=[A-Z])", first_line(error))[0].rstrip(".!")
