"""A forward that asks ``type(x)`` while it is traced gets the class that the value has, or is not traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, layers
from tests.support.helpers import Model, folds, trained, values


class Stage(Model):
    """A stage of HRNet: it takes one value, or a list of them."""

    def forward(self, x: Any) -> list[Any]:
        y = self.one(x[-1] if type(x) is list else x)
        return [y, self.bn(self.conv(y))]


class Stages(Model):
    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x))


def stage() -> nn.Module:
    return Stage(one=nn.Conv2d(3, 3, 3), conv=nn.Conv2d(3, 3, 3), bn=nn.BatchNorm2d(3))


def test_a_model_that_asks_whether_it_gets_a_list_is_one_graph() -> None:
    model = trained(Stages(first=stage(), second=stage()))
    fused = fx_fuse(model)
    assert isinstance(fused, fx.GraphModule)
    assert folds(fused) == ["first.bn", "second.bn"]
    assert_right(model, fused, [values(2, 3, 12, 12)])


class Asks(Model):
    ask: Any

    def forward(self, x: Tensor) -> Any:
        y = self.bn(self.conv(x))
        return y * 2 if type(self).ask(self, y) else y + 1


QUESTIONS: dict[str, Any] = {
    "is Tensor": lambda _, y: type(y) is Tensor,
    "equals Tensor": lambda _, y: type(y) == Tensor,  # noqa: E721
    "is list": lambda _, y: type(y) is list,
    "one of two": lambda _, y: type(y) in (list, tuple),
    "a key": lambda _, y: {Tensor: True}.get(type(y), False),
    "its name": lambda _, y: type(y).__name__ == "Tensor",
    "of parts": lambda _, y: type(y.chunk(3, 1)) is tuple,
    "of a parameter": lambda m, _: type(m.conv.weight) is nn.Parameter,
    "of a size": lambda _, y: type(y.shape[0]) is int,
    "of a shape": lambda _, y: type(y.shape) is torch.Size,
    "of a number": lambda _, y: type(y.dim()) is int,
    "of the module": lambda m, _: type(m.bn) is nn.BatchNorm2d,
    "a class": lambda m, _: isinstance(type(m), type) and type(type(m)) is type and issubclass(type, type),
    "a new class": lambda _, y: type("New", (), {"of": y}).of is y,
}


@pytest.mark.parametrize("structure", [None, "module"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_class_is_answered_wrongly(question: str, structure: Any) -> None:
    cls: Any = type("Asking", (Asks,), {"ask": staticmethod(QUESTIONS[question])})
    model = trained(cls(**layers()))
    assert_right(model, fx_fuse(model, structure=structure), [values(2, 3, 6, 6)])


@pytest.mark.parametrize("question", ["is Tensor", "is list", "one of two", "its name", "of a size"])
def test_a_class_that_is_sure_costs_no_fold(question: str) -> None:
    cls: Any = type("Asking", (Asks,), {"ask": staticmethod(QUESTIONS[question])})
    assert "bn" in folds(fx_fuse(trained(cls(**layers()))))


def test_the_builtin_is_back_afterwards() -> None:
    fx_fuse(trained(Stages(first=stage(), second=stage())))
    assert "type" not in globals()
