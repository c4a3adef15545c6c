"""The points at which a pass can be interrupted: every call that it makes, before its effect and after it.

Python's profiler is told of each call and each return.  What it raises there, it raises in the code that runs.  So no
list of functions is kept here, and a new one is covered as soon as a pass calls it.
"""

from __future__ import annotations

import gc
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import fx

import fxfuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType, FrameType

_OURS = str(Path(fxfuse.__file__).parent)
_FX = str(Path(fx.__file__).parent)
# Code that puts things back cannot be interrupted and put them back all the same.
_PUT_BACK = {"__exit__", "restore"}


class Point(NamedTuple):
    """Where a pass can be interrupted.

    Attributes:
        event: ``call`` and ``return`` of a function in Python, ``c_call`` and ``c_return`` of one in C.
        code: the function, or for one in C the code that calls it.
        called: the name of a function in C.
        number: how often the pass comes there before.
    """

    event: str
    code: CodeType
    called: str
    number: int = 0

    @property
    def file(self) -> str:
        """The file of the code."""
        return Path(self.code.co_filename).name

    def __str__(self) -> str:
        return f"{self.event} {self.called} {self.file}:{self.code.co_name} #{self.number}"


def points_of(call: Callable[[], object]) -> dict[Point, int]:
    """Where a call comes, in order, and how often."""
    found: dict[Point, int] = {}
    outside: set[Point] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if not _is_meant(frame.f_code, event):
            return
        point = Point(event, frame.f_code, _name(event, argument))
        if point in found:
            found[point] += 1
        elif point not in outside:
            if _in_pass(frame):
                found[point] = 1
            else:
                outside.add(point)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def interrupted(call: Callable[[], object], point: Point, error: BaseException) -> tuple[object, bool]:
    """Raise an error when a call comes to a point; what it gives, and whether it did come there."""
    wanted, code, left = point.event, point.code, point.number

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        if frame.f_code is code and event == wanted and _name(event, argument) == point.called:
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise error

    gc.collect(0)  # what the call before left unfinished ends now, where nobody watches
    sys.setprofile(watch)
    try:
        result = call()
    finally:
        sys.setprofile(None)
    return result, left < 0


def _name(event: str, argument: Any) -> str:
    return str(getattr(argument, "__name__", "")) if event.startswith("c_") else ""


def _is_meant(code: CodeType, event: str) -> bool:
    """Whether it is a call of fxfuse or torch.fx, or one that fxfuse makes of what is written in C; no generator."""
    if event.startswith("c_"):
        return event != "c_exception" and code.co_filename.startswith(_OURS)
    return code.co_filename.startswith((_OURS, _FX)) and not code.co_flags & inspect.CO_GENERATOR


def _in_pass(frame: FrameType) -> bool:
    """Whether code runs in a pass, and not before it, behind it, or to put things back."""
    callers = list(_callers(frame))
    done = frame.f_code.co_name == "put_into" and "run_pass" in callers[:1]
    return "run_pass" in callers and not done and _PUT_BACK.isdisjoint([frame.f_code.co_name, *callers])


def _callers(frame: FrameType) -> Iterator[str]:
    current = frame.f_back
    while current is not None:
        yield current.f_code.co_name
        current = current.f_back


def some_of(points: Sequence[Point], count: int, first: int = 0) -> list[Point]:
    """A few of the points, at equal distances, from one of them on."""
    step = max(len(points) // count, 1)
    return list(points[first % step :: step])
