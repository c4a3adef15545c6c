"""Hazard 36: layers that one forward calls one after another, but not always, or not those: nothing there folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from fxfuse import Report, fx_fuse
from tests.hazards.blocks import assert_right, batch_of, layers
from tests.support.helpers import Model, assert_equal, folds, trained, values

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


class Setter(nn.Module):
    def forward(self, x: Tensor, other: Any) -> Tensor:
        other.use_norm = batch_of(x) > LARGE
        return x


class Switched(Model):
    use_norm = True

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y) if self.use_norm else y

    def raw(self, x: Tensor) -> Any:
        self.use_norm = False
        y = self.forward(x)
        self.use_norm = True
        return y


class HandsOn(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(self.first(x, self.block))


def test_a_block_that_is_handed_to_untraced_code_stays() -> None:
    model = trained(HandsOn(first=Setter(), block=Switched(**layers())))
    fused = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    assert not folds(fused)


def test_a_method_that_sets_what_the_forward_reads_is_not_kept_by_a_graph() -> None:
    model: Any = trained(Switched(**layers()))
    graph, kept = fx_fuse(model), fx_fuse(model, structure="module")
    assert folds(graph) == ["bn"]
    assert not hasattr(graph, "raw")
    assert "raw" in str(Report.of(graph))
    with torch.no_grad():
        for x in INPUTS:
            assert_equal(model.raw(x), kept.raw(x))


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
