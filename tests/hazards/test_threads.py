"""Other threads go on while a model is fused: they fuse others, run models, and leave nothing behind."""

from __future__ import annotations

import builtins
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.helpers import assert_equal, trained
from tests.samples import randn


class Waits(nn.Module):
    """Waits in its forward, when it is traced, until another thread has done what it wanted."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        started, go_on = EVENTS[self.name]
        started.set()
        go_on.wait(60)
        return self.bn(y)


EVENTS: dict[str, tuple[threading.Event, threading.Event]] = {}


def waiting(name: str) -> tuple[Waits, threading.Event, threading.Event]:
    """A model, and the events that say that its forward has begun, and let it go on."""
    EVENTS[name] = threading.Event(), threading.Event()
    return trained(Waits(name)), *EVENTS[name]


class Casts(nn.Module):
    """Uses a region of its own, in which a trace would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.conv(x) * max(self.conv.weight.shape)


def plain() -> nn.Module:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))


def exchanged() -> list[Any]:
    """What a trace exchanges."""
    norms = [cls.__dict__["_check_input_dim"] for cls in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)]
    of_modules = [nn.Module.__call__, nn.Module.__getattr__]
    return [*norms, *of_modules, torch.autocast.__enter__, builtins.max, builtins.min]


@torch.no_grad()
def test_models_run_while_another_is_traced() -> None:
    before, (model, started, go_on), others = exchanged(), waiting("alone"), [plain(), trained(Casts())]
    x = randn(2, 3, 6, 6)
    outputs = [other(x) for other in others]
    with ThreadPoolExecutor(1) as pool:
        fused = pool.submit(lambda: fx_fuse(model))
        try:
            assert started.wait(60)
            assert exchanged() != before, "no trace is under way"
            for other, output in zip(others, outputs, strict=True):
                assert_equal(output, other(x))
            assert type(model.conv.weight) is nn.Parameter
            assert model.conv(x).shape == (2, 4, 4, 4)
        finally:
            go_on.set()
        result = fused.result()
    assert [d.path for d in Report.of(result).folded] == ["bn"]
    assert_equal(model(x), result(x))
    assert exchanged() == before


@torch.no_grad()
def test_a_trace_that_begins_first_may_end_first() -> None:
    before, (one, begun, end_one), (other, _, end_other) = exchanged(), waiting("one"), waiting("other")
    x = randn(2, 3, 6, 6)
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(lambda: fx_fuse(one))
            assert begun.wait(60)
            second = pool.submit(lambda: fx_fuse(other))
            time.sleep(0.2)  # in which it would begin, if it did not wait
            end_one.set()
            results = [first.result()]
        finally:
            end_one.set()
            end_other.set()
        results.append(second.result())
    assert exchanged() == before
    for model, result in zip((one, other), results, strict=True):
        assert [d.path for d in Report.of(result).folded] == ["bn"]
        assert_equal(model(x), result(x))


@torch.no_grad()
def test_several_are_fused_at_once() -> None:
    before, models, x = exchanged(), [plain() for _ in range(24)], randn(2, 3, 6, 6)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fx_fuse, models))
    for model, result in zip(models, results, strict=True):
        assert len(Report.of(result).folded) == 1
        assert_equal(model(x), result(x))
    assert exchanged() == before
