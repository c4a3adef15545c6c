"""Values lie with their channels last between kernels, as far as nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import lower
from fxfuse.lowering.reading import Reading
from fxfuse.operators.shuffles import shuffle_by_hand
from tests.support.helpers import Model

from .models import fast, gap, image


@dataclass
class Held:
    value: Tensor


@torch.fx.wrap
def held(x: Tensor) -> Held:
    return Held(x * 1)


@torch.fx.wrap
def harmless(x: Tensor) -> Tensor:
    return x + 1


@torch.fx.wrap
def viewing(x: Tensor) -> Tensor:
    return x.view(-1)


@torch.fx.wrap
def compiled_code(x: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.relu(x)
    return result


class Shuffled(Model):
    """A shuffle of channels by hand, between layers."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), self.b(x)], 1)
        batch, channels, height, width = y.size()
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        y = y.view(batch, channels, height, width)
        first, second = y.chunk(2, dim=1)
        return torch.cat([first, self.c(second)], 1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("height", [1, 9])
def test_channels_that_are_shuffled_by_hand(batch: int, height: int) -> None:
    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1), "c": nn.Conv2d(4, 4, 1)}
    x = image(batch, 3, height, 7)
    model = fast(Shuffled(**layers), image(2, 3, 9, 7))
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        for _ in range(2):
            result, expected = model(given), model.fused(given)
            assert result.stride() == expected.stride()
            assert gap(result, expected) < 2e-6
    with pytest.warns(UserWarning, match="ran as the fused one does"):
        assert model(image(0, 3, height, 7)).shape == (0, 8, height, 7)


def _whole(y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


SHUFFLES: dict[str, tuple[Any, bool]] = {
    "sizes": (_whole, True),
    "open": (
        lambda y: y.reshape((y.size(0), 2, -1, 9, 7)).transpose(2, 1).contiguous().view(y.size(0), -1, 9, 7),
        True,
    ),
    "of other axes": (lambda y: y.view(-1, 2, 4, 9, 7).transpose(1, 3).contiguous().view(-1, 8, 9, 7), False),
    "into other axes": (lambda y: y.view(-1, 2, 4, 9, 7).transpose(1, 2).contiguous().view(-1, 8, 63), True),
    "of split sizes": (lambda y: y.view(-1, 2, 4, 7, 9).transpose(1, 2).contiguous().view(-1, 8, 9, 7), True),
    "read inside": (
        lambda y: (z := y.view(-1, 2, 4, 9, 7).transpose(1, 2)).contiguous().view(-1, 8, 9, 7) + z.sum(),
        False,
    ),
    "by name": (lambda y: y.view(size=(-1, 2, 4, 9, 7)).transpose(1, 2).contiguous().view(-1, 8, 9, 7), False),
    "bits": (lambda y: y.view(torch.int32).transpose(1, 2).contiguous().view(torch.float32), False),
    "of three axes": (lambda y: y.view(y.size(0), 2, -1).transpose(1, 2).contiguous().view(y.size(0), -1), True),
}


@pytest.mark.parametrize("name", SHUFFLES)
def test_what_is_a_shuffle_of_channels_and_what_looks_like_one(name: str) -> None:
    shuffle, found = SHUFFLES[name]

    class Shuffling(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = shuffle(torch.relu(self.a(x)))
            return y * 2

    traced = torch.fx.symbolic_trace(Shuffling(a=nn.Conv2d(3, 8, 1)).eval())
    reading = Reading(traced)
    assert any(shuffle_by_hand(reading.graph, node) for node in reading.nodes) is found
    model = lower(traced, image(2, 3, 9, 7))
    for batch in (2, 1):
        for _ in range(2):
            result, expected = model(image(batch, 3, 9, 7)), traced(image(batch, 3, 9, 7))
            assert result.stride() == expected.stride()
            assert gap(result, expected) < 2e-6


def test_a_shuffle_of_what_is_written_afterwards() -> None:
    class Writing(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z = y.view(-1, 2, 4, 9, 7).transpose(1, 2).contiguous()
            y.mul_(2)
            return z.view(-1, 8, 9, 7) + y

    traced = torch.fx.symbolic_trace(Writing(a=nn.Conv2d(3, 8, 1)).eval())
    x = image(2, 3, 9, 7)
    assert gap(lower(traced, x)(x), traced(x)) < 2e-6


CALLS: dict[str, tuple[Any, bool]] = {
    "harmless": (lambda x: -harmless(x), False),  # torch.fx finds what is wrapped by its name
    "viewing": (lambda x: -viewing(x), True),
    "compiled_code": (lambda x: -compiled_code(x), True),
    "erfc": (torch.erfc, True),
}


@pytest.mark.parametrize("name", CALLS)
def test_code_that_may_see_strides(name: str) -> None:
    call, sees = CALLS[name]

    class Calling(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = call(self.a(x)) * 2
            return y

    model = torch.fx.symbolic_trace(Calling(a=nn.Conv2d(3, 4, 3)).eval())
    reading = Reading(model)
    found = [n for n in reading.nodes if getattr(n.target, "__name__", "") == name]
    assert [reading.sees_layout(node) for node in found] == [sees]
    result = lower(model, image())
    assert gap(result(image()), model(image())) < 2e-6


def test_tensors_in_what_the_users_code_returns_lie_as_in_the_fused_model() -> None:
    class Holding(Model):
        def forward(self, x: Tensor) -> Any:
            return held(self.a(x))

    model = torch.fx.symbolic_trace(Holding(a=nn.Conv2d(3, 4, 3)).eval())
    result = lower(model)
    for _ in range(2):
        assert result(image()).value.stride() == model(image()).value.stride()


@torch.fx.wrap
def some(x: Tensor) -> list[Tensor]:
    return [x] * (1 + int(x.shape[0] > 1))


def test_results_that_come_in_other_numbers() -> None:
    class Counting(Model):
        def forward(self, x: Tensor) -> Any:
            return some(self.a(x))

    model = torch.fx.symbolic_trace(Counting(a=nn.Conv2d(3, 4, 3)).eval())
    result = lower(model, image())
    assert [len(result(image(batch, 3, 8, 8))) for batch in (1, 2)] == [1, 2]
