"""Hazard 33: forwards that write state, or compute a part in another dtype: a graph would lose that."""

from __future__ import annotations

import collections
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import EXAMPLES, SHAPES, assert_decided, assert_recorded, assert_stays, block, example, layers
from tests.support.helpers import Model, assert_equal, folds, run, trained, unchanged, values

# -- state


class Counts(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.block(x) * self.count


class CountsInDictionary(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.state["seen"]["count"] += 1
        return self.block(x) * self.state["seen"]["count"]


class CountsInObject(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.meter.count += 1
        return self.block(x) * self.meter.count


class CountsInQueue(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.queue.append(1)
        return self.block(x) * len(self.queue)


class CountsInChild(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.other.count = getattr(self.other, "count", 0) + 1
        return self.block(x) * self.other.count


class CountsInBuffer(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.block(x) * self.calls


class CountsOnClass(Model):
    calls_of_all = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls_of_all += 1
        return self.block(x) * (1 + self.calls_of_all % 2)


class KeepsValues(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.state["seen"]["last"] = y = self.block(x)
        return y


COUNTING = [
    Counts, CountsInDictionary, CountsInObject, CountsInQueue, CountsInChild, CountsInBuffer, CountsOnClass,
    KeepsValues,
]  # fmt: skip


def counting(cls: type[Model]) -> Any:
    torch.manual_seed(0)
    state = {"seen": {"count": 1}}
    meter, queue = types.SimpleNamespace(count=1), collections.deque([1])
    calls = torch.ones((), dtype=torch.float64)
    return trained(cls(block=block(), other=nn.ReLU(), count=1, state=state, meter=meter, queue=queue, calls=calls))


@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("cls", COUNTING)
def test_state_is_written_as_before(cls: type[Model], shape: tuple[int, ...] | None) -> None:
    twin, model = counting(cls), counting(cls)
    first = [run(twin, (torch.ones(2, 3, 6, 6, dtype=torch.float64),)) for _ in range(2)]
    with unchanged(model):
        fused = fx_fuse(model, example(shape))
    if cls is CountsOnClass:
        cls.calls_of_all = 0
    assert [model.count, model.state, model.meter.count, len(model.queue)] == [1, {"seen": {"count": 1}}, 1, 1]
    second = [run(fused, (torch.ones(2, 3, 6, 6, dtype=torch.float64),)) for _ in range(2)]
    assert_equal(first, second)
    assert folds(fused) == ["block.bn"]


class ChangesChild(Model):
    def forward(self, x: Tensor) -> Tensor:
        found = []
        for rate in (1, 2):
            self.conv.dilation = self.conv.padding = (rate, rate)
            found.append(self.bn(self.conv(x)))
        return torch.cat(found)


def test_a_layer_that_the_forward_changes_keeps_the_norm_unless_it_was_seen() -> None:
    model = trained(ChangesChild(**layers()))
    model.conv.dilation = model.conv.padding = (2, 2)
    assert_stays(model, ["bn"])
    assert_recorded(model, "bn", example=values(*SHAPES[0]), branches=False)


# -- regions


class LowPrecision(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.block(x.float())
        return y.double() + self.other(x)


class NoAutocast(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.block(x.float())


@pytest.mark.parametrize("shape", EXAMPLES)
def test_a_region_of_low_precision_stays_one(shape: tuple[int, ...] | None) -> None:
    model = trained(LowPrecision(block=block(), other=block()))
    model.block.float()
    fused: Any = fx_fuse(model, example(shape))
    assert {"other.bn"} <= set(folds(fused)) <= {"block.bn", "other.bn"}
    x = values(2, 3, 6, 6)
    assert_equal(run(model, (x,)), run(fused, (x,)), rtol=2e-2)
    assert_equal(run(model.other, (x,)), run(fused.other, (x,)))


def test_a_region_without_autocast_stays_one() -> None:
    model = trained(NoAutocast(block=block())).float()
    fused = assert_decided_in_float(model)
    x = values(2, 3, 6, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(run(model, (x,)), run(fused, (x,)), rtol=1e-5)


def assert_decided_in_float(model: nn.Module) -> nn.Module:
    with unchanged(model):
        fused = fx_fuse(model)
    assert folds(fused) == ["block.bn"]
    return fused


# -- questions to values that may not be tensors


class LooksForAttribute(Model):
    def forward(self, x: Any) -> Tensor:
        if hasattr(x, "tensors"):
            x = x.tensors.relu()
        return self.block(x)


@pytest.mark.parametrize("shape", EXAMPLES)
def test_a_forward_that_looks_for_an_attribute_is_right_for_both(shape: tuple[int, ...] | None) -> None:
    model = trained(LooksForAttribute(block=block()))
    fused = assert_decided(model, folded=["block.bn"], example_inputs=example(shape))
    nested = types.SimpleNamespace(tensors=values(2, 3, 6, 6))
    assert_equal(run(model, (nested,)), run(fused, (nested,)))
