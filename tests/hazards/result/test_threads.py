"""Hazard 29: other threads go on while a model is fused: they fuse others, run models, and leave nothing behind."""

from __future__ import annotations

import builtins
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import assert_equal, trained
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Callable


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


POOL = ThreadPoolExecutor(2)


def in_new_thread(task: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(task()))
    thread.start()
    thread.join()
    return found[0]


def in_pool(task: Callable[[], Any]) -> Any:
    return POOL.submit(task).result()


class Elsewhere(nn.Module):
    """Computes a part in another thread, which has none of the modes of the one that called."""

    def __init__(self, run: Callable[..., Any], task: Callable[..., Tensor]) -> None:
        super().__init__()
        self.run, self.task = run, task
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.weight = nn.Parameter(randn(3, 1, 1))
        self.bn, self.mix = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda: self.task(self, self.bn(self.conv(x))))


def cast(model: Elsewhere, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.mix(x.float()).double()


TASKS: dict[str, Callable[..., Tensor]] = {
    "a region of its own": cast,
    "a norm that counts": lambda model, x: model.norm(x),
    "a parameter": lambda model, x: x * (model.weight * 2),
    "dropout": lambda model, x: model.drop(x),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("run", [in_new_thread, in_pool])
def test_a_forward_with_threads_stays_what_it_is(run: Callable[..., Any], task: str) -> None:
    POOL.submit(int).result()  # so that its threads are there before the trace
    part = trained(Elsewhere(run, TASKS[task]))
    part.mix.float()
    part.norm.train()
    model = nn.Sequential(part, *trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    model.training = False
    before, x = {name: tensor.clone() for name, tensor in model.state_dict().items()}, randn(2, 3, 6, 6)
    with torch.no_grad():
        fused = fx_fuse(model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert [decision.path for decision in Report.of(fused).folded] == ["2"]
        assert_equal(model(x), fused(x))
    assert len(list(fused.get_submodule("0").parameters())) == len(list(part.parameters()))
    assert not [name for name in part.__dict__ if name.startswith("_tensor_constant")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_trace_can_trace() -> None:
    model, started, go_on = waiting("forked")
    with ThreadPoolExecutor(1) as pool:
        fused = pool.submit(lambda: fx_fuse(model))
        try:
            assert started.wait(60)
            child = os.fork()
            if not child:
                signal.alarm(30)  # it would wait for ever
                folded = len(Report.of(fx_fuse(plain())).folded)
                os._exit(0 if folded == 1 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            go_on.set()
        fused.result()
