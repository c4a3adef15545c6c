"""Hazard 33: forwards that draw random numbers, on the CPU or another device: a graph would lose that."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import EXAMPLES, block, example
from tests.support.helpers import Model, assert_equal, folds, run, trained, unchanged, values


class RandomTensor(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + torch.rand(3, 1, 1, dtype=torch.float64)


class RandomLike(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + torch.rand_like(x)


class RandomNumber(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * (1 + random.random())  # noqa: S311 - no secret


class AlwaysDrops(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(nn.functional.dropout(x, 0.5, training=True))


class OwnGenerator(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + torch.rand(3, 1, 1, dtype=torch.float64, generator=self.generator)


@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("cls", [RandomTensor, RandomLike, RandomNumber, AlwaysDrops, OwnGenerator])
def test_chance_stays_chance(cls: type[Model], shape: tuple[int, ...] | None) -> None:
    model = trained(cls(block=block(), generator=torch.Generator()))
    x = example(shape)
    before, chance = torch.get_rng_state(), random.getstate()
    with unchanged(model):
        fused = fx_fuse(model, x)
    assert torch.equal(before, torch.get_rng_state())
    assert chance == random.getstate()
    assert folds(fused) == ["block.bn"]
    one, other, drawn = values(2, 3, 6, 6), [], []
    for either in (model, fused):
        torch.manual_seed(5)
        random.seed(5)
        model.generator.manual_seed(5)
        other.append(run(either, (one,)))
        drawn.append(run(either, (one,)))
    assert_equal(other[0], other[1])
    assert_equal(drawn[0], drawn[1])
    assert not torch.equal(other[1], drawn[1])


class Gpu:
    """What torch has for a device beside the CPU: the generators of its devices, which no model holds."""

    def __init__(self, devices: int) -> None:
        self.generators = [torch.Generator().manual_seed(index) for index in range(devices)]

    def is_initialized(self) -> bool:
        return True

    def get_rng_state(self) -> Tensor:
        raise AssertionError("of one device alone")

    def get_rng_state_all(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def set_rng_state_all(self, states: list[Tensor]) -> None:
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)


class Metal:
    """The same of a device that is the only one."""

    def __init__(self) -> None:
        self.generators = [torch.Generator().manual_seed(0)]

    def get_rng_state(self) -> Tensor:
        return self.generators[0].get_state()

    def set_rng_state(self, state: Tensor) -> None:
        self.generators[0].set_state(state)


class Unused(Gpu):
    def is_initialized(self) -> bool:
        return False

    def get_rng_state_all(self) -> list[Tensor]:
        raise AssertionError("it would be started")


def put_in(monkeypatch: pytest.MonkeyPatch, gpu: Any) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda _: gpu)


@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("gpu", [Gpu(2), Metal()])
def test_chance_of_another_device_stays_chance(
    gpu: Any, shape: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = gpu.generators[-1]

    class Draws(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) + torch.rand(3, 1, 1, dtype=torch.float64, generator=last)

    put_in(monkeypatch, gpu)
    model = trained(Draws(block=block()))
    before = last.get_state()
    fused = fx_fuse(model, example(shape))
    assert torch.equal(before, last.get_state())
    assert folds(fused) == ["block.bn"]
    x, drawn = values(2, 3, 6, 6), []
    for either in (model, fused, fused):
        drawn.append(run(either, (x,)))
        last.set_state(before) if either is model else None
    assert_equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_a_device_that_is_not_in_use_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, Unused(1))
    assert folds(fx_fuse(trained(Model(block=block())).block)) == ["bn"]
