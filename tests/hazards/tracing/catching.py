"""Forwards that go on after exceptions.

They are not in a test file, since pytest rewrites the assertions there to something else.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import suppress as quiet
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.profiler import record_function

from tests.support.helpers import Model

if TYPE_CHECKING:
    from collections.abc import Iterator


class CatchesAnAssertion(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            assert x.sum() > 0
            y = self.bn(y)
        except AssertionError:
            y = y * 2
        return y


class CatchesInAHelper(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if is_positive(x) else self.conv(x)


class SuppressesAnAssertion(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with contextlib.suppress(AssertionError):
            assert x.sum() > 0
            y = self.bn(y)
        return y


class CatchesEverything(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            y = self.bn(y).view(4, -1)
        except:  # noqa: E722 - this is the point
            y = y * 2
        return y


def is_positive(x: Tensor) -> bool:
    try:
        assert x.sum() > 0
    except AssertionError:
        return False
    return True


class InAMethod(Model):
    """What it asks is asked of a value, and a proxy raises another exception than that would."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.scaled(x)))

    def scaled(self, x: Tensor) -> Tensor:
        try:
            range(x.shape[0])
        except TypeError:
            return x * 2
        return x


class OtherName(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with quiet(AssertionError):
            assert x.sum() > 0
            y = self.bn(y)
        return y


class Swallows:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> bool:
        return True


@contextlib.contextmanager
def swallowing() -> Iterator[None]:
    try:  # noqa: SIM105 - this is the point
        yield
    except AssertionError:
        pass


class ByAManager(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with Swallows():
            assert x.sum() > 0
            y = self.bn(y)
        return y  # noqa: RET504 - the exception may come before


class ByAGenerator(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with swallowing():
            assert x.sum() > 0
            y = self.bn(y)
        return y  # noqa: RET504 - the exception may come before


class ByFinally(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            assert x.sum() > 0
            y = self.bn(y)
        finally:
            return y  # noqa: B012 - this is the point


class Fallback(Model):
    """Runs another layer where the first does not take the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(safely(self.conv, self.other, x))


def safely(first: Any, second: Any, x: Tensor) -> Any:
    try:
        return first(x)
    except RuntimeError:
        return second(x)


# -- those that do not go on


@contextlib.contextmanager
def timed(times: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        times.append(time.perf_counter() - start)


class TellsInOtherWords(Model):
    def forward(self, x: Tensor) -> Tensor:
        try:
            y = self.conv(x)
        except RuntimeError as error:
            raise ValueError("no such input") from error
        finally:
            self.conv.eval()
        with torch.no_grad(), contextlib.nullcontext(), record_function("norm"), timed([]):
            return self.bn(y)
