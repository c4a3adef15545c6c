"""Branches on values: where every way gives the same graph, they do not matter; else the forward is not traced."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason
from tests.hazards.blocks import assert_decided, assert_stays, layers
from tests.support.helpers import STRUCTURES, Model, Structure, trained


class OnGpu(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and self.count > 1:
            return nn.parallel.data_parallel(self.conv, x)
        return self.bn(self.conv(x))


class Empty(Model):
    """As in a detection library: an empty input in training mode is refused."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0 and self.training:
            raise ValueError("empty")
        x = F.conv2d(x, self.conv.weight, self.conv.bias, self.conv.stride, self.conv.padding)
        return self.bn(x)


class Either(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if x.requires_grad or x.shape[0] == 1 or self.count > 5:
            return self.bn(y)
        return self.bn(y)


class Several(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if x.shape[0] > 2 and self.count > 1:
            y = y * 2
        if x.sum() > 0 and self.count > 1:
            y = y.relu()
        return self.bn(y)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cls", [OnGpu, Empty, Either, Several])
def test_a_branch_that_makes_no_difference(cls: type[Model], nested: bool, structure: Structure) -> None:
    inner = cls(**layers(), count=1)
    model = trained(nn.Sequential(inner, nn.Sigmoid()) if nested else inner)
    assert_decided(model, folded=["0.bn" if nested else "bn"], structure=structure)


class Differs(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y if x.shape[0] > 2 else y.relu())


class DiffersLater(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 1 and self.count > 1:
            x = x * 2
        y = self.conv(x)
        return self.bn(y) if x.sum() > 0 else self.bn(y.relu())


class Number(Model):
    """The graph is the same but for a number."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.leaky_relu(self.conv(x), 0.5 if x.shape[0] > 2 else 0.25))


class Returned(Model):
    """The condition itself is what is given on."""

    def forward(self, x: Tensor) -> Tensor:
        big = x.sum() > 0
        y = self.conv(x)
        return self.bn(y) * (big if big else x.sum() < 0)  # noqa: FURB110 - the truth is asked for


class Loop(Model):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return self.bn(self.conv(x))


class Remembers(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 2:
            self.count += 1
        return self.bn(self.conv(x))


class Stops(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.isnan().any():
            breakpoint()  # noqa: T100 - as people leave it in their code
        return self.bn(self.conv(x))


class Speaks(Model):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 2:
            warnings.warn("many", stacklevel=2)
        return self.bn(self.conv(x))


OTHERS = [Differs, DiffersLater, Number, Returned, Loop, Remembers]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cls", OTHERS)
def test_a_branch_that_makes_a_difference_is_not_traced(cls: type[Model], nested: bool) -> None:
    inner = cls(**layers(), count=1)
    model = trained(nn.Sequential(inner, nn.Sigmoid()) if nested else inner)
    assert_stays(model, ["0.bn" if nested else "bn"], because={Reason.OPAQUE, Reason.NOT_LINEAR})


@pytest.mark.filterwarnings("ignore:many")
@pytest.mark.parametrize("cls", [Stops, Speaks])
def test_a_branch_in_which_somebody_is_told_something_is_not_gone(cls: type[Model]) -> None:
    assert_stays(trained(cls(**layers())), ["bn"], because={Reason.OPAQUE})


def test_what_was_answered_leaves_no_nodes_that_somebody_else_reads() -> None:
    class Shares(Model):
        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[0]
            if size > 2 and self.count > 1:
                x = x * 2
            return self.bn(self.conv(x)).reshape(size, -1)

    assert_decided(trained(Shares(**layers(), count=1)), folded=["bn"])
    assert torch.is_grad_enabled()
