"""Layers that one forward calls one after another, but not always, or not those: nothing there folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch import nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, batch_of, layers
from tests.helpers import Model, folds, trained, values

if TYPE_CHECKING:
    from torch import Tensor

INPUTS = [values(*shape) for shape in ((2, 3, 6, 6), (6, 3, 6, 6))]
LARGE = 4  # batches of more take the other way


class Caught(Model):
    def forward(self, x: Tensor) -> Any:
        try:
            y = self.conv(x)
            refuse(x)
            y = self.bn(y)
        except ValueError:
            pass
        return y


def refuse(x: Tensor) -> None:
    if batch_of(x) > LARGE:
        raise ValueError("too large")


class Late(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        late = (self.bn(y) for _ in range(batch_of(x) // batch_of(x)))
        y = x
        return next(late)


class Walrus(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y) if batch_of(y := x) > LARGE else y


class Matched(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        match batch_of(x) > LARGE:
            case True:
                y = x
                y = self.bn(y)
        return y


class Shadowed(Model):
    def forward(self, x: Tensor) -> Any:
        def inner(stride_of: Any) -> Any:
            return stride_of(self.conv)

        more = inner(lambda layer: layer(x)) if batch_of(x) > LARGE else 0
        return self.bn(self.conv(x)) + more * stride_of(self.conv)


def stride_of(layer: Any) -> int:
    number: int = layer.stride[0]
    return number


class ClassAttribute(Model):
    bn: Any = None

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        if self.bn is not None:
            y = self.bn(y)
        return y * batch_of(x)


@pytest.mark.parametrize("cls", [Caught, Late, Walrus, Matched, Shadowed, ClassAttribute])
def test_a_layer_that_may_not_follow_stays(cls: type[Model]) -> None:
    model = trained(cls(**layers()))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert not folds(fused)


def test_a_hook_above_may_look_at_the_layers() -> None:
    class Inner(Model):
        def forward(self, x: Tensor) -> Any:
            return self.bn(self.conv(x)) * batch_of(x)

    model = trained(nn.Sequential(Inner(**layers())))
    model.register_forward_hook(lambda module, inputs, result: result + module[0].conv(inputs[0]))
    assert_right(model, fx_fuse(model), INPUTS)
