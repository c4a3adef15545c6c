"""Values lie with their channels last between kernels, as far as nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import lower
from fxfuse.lowering.reading import Reading
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
