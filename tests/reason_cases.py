"""Models that provoke each reason, for ``test_reasons``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason
from tests.helpers import Model, trained, values
from tests.samples import parameter

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)


def layers(*between: nn.Module, last: nn.Module | None = None) -> nn.Sequential:
    """A convolution, something, and a norm; the norm is ``norm``, the convolution ``conv``."""
    named = nn.Sequential()
    named.add_module("conv", nn.Conv2d(3, 4, 3))
    for module in between:
        named.add_module("between", module)
    named.add_module("norm", last or nn.BatchNorm2d(4))
    return trained(named)


class Net(Model):
    """A model with a block below, so that paths have two parts."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return y


@dataclass(frozen=True)
class Case:
    """A model that provokes a reason, the path of what stays, and words of the sentence."""

    reason: Reason
    make: Callable[[], nn.Module]
    words: tuple[str, ...]
    path: str = "block.norm"
    options: dict[str, Any] = field(default_factory=dict)


def net(block: nn.Module) -> nn.Module:
    return Net(block=block)


def training() -> nn.Module:
    model = nn.Sequential(net(layers()), net(trained(nn.Sequential(nn.BatchNorm2d(4))))).eval()
    model.get_submodule("0.block.norm").train()
    return model


def hooked() -> nn.Module:
    block = layers()
    block.get_submodule("conv").register_forward_hook(lambda _module, _args, output: output)
    return net(block)


class Shared(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) + self.conv(x)
        return y


class Several(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.norm(y) + y
        return z


class Changed(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.norm.running_mean.mul_(0.5)
        y: Tensor = self.norm(self.conv(x))
        return y


class ChangedValue(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.norm(y) + y.relu_()
        return z


class Computed(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(F.conv2d(x, self.weight * x.mean()))
        return y


class Unknown(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight)
        return F.batch_norm(y, self.mean, self.var)


class Reads(Model):
    """Cannot be traced, and reads a weight of the convolution that a part of it calls."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y * self.inner.conv.weight.sum() if x.sum() > 0 else y


class Branches(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) if x.sum() > 0 else self.norm(self.conv(-x))
        return y


class Leaves(Model):
    """May return before the norm, which no run on small images shows."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if int(x.shape[-1]) > 100:
            return y
        z: Tensor = self.norm(y)
        return z


class Twice(Model):
    """The same convolution with a norm and without: one class cannot hold both."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) * self.conv(x)
        return y


def conv_and_norm(cls: type[Model], **others: Any) -> nn.Module:
    return net(trained(cls(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), **others)))


def unused() -> nn.Module:
    block = layers(nn.ReLU())[:2]
    return Net(block=trained(block), norm=nn.BatchNorm2d(4)).eval()


def overflowing() -> nn.Module:
    block = layers(last=nn.BatchNorm2d(4, eps=1e-12)).half()
    block.state_dict()["norm.running_var"].zero_()
    return net(block)


def on_meta() -> nn.Module:
    block = layers()
    block.get_submodule("conv").to("meta")
    return net(block)


def statistics() -> dict[str, Tensor]:
    return {"mean": values(4), "var": values(4).exp()}


class Gains(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x) * self.gain)
        return y


def promoting() -> nn.Module:
    model = net(Gains(conv=nn.Conv2d(3, 4, 3), gain=values(4, 1, 1), norm=nn.BatchNorm2d(4).double()))
    return model.eval()


def complex_weight() -> nn.Module:
    block = layers()
    block.conv = nn.Conv2d(3, 4, 3, dtype=torch.complex64)
    return net(block)


def cancelling() -> nn.Module:
    block = layers().float()
    block.state_dict()["conv.bias"].fill_(1e7)
    block.state_dict()["norm.running_mean"].fill_(1e7)
    return net(block)


CASES = [
    Case(Reason.TRAINING, training, ("training mode", ".eval()"), "0.block.norm"),
    Case(
        Reason.BATCH_STATISTICS,
        lambda: net(layers(last=nn.BatchNorm2d(4, track_running_stats=False))),
        ("track_running_stats=True",),
    ),
    Case(Reason.NOT_LINEAR, lambda: net(layers(nn.ReLU())), ("block.between",)),
    Case(Reason.SEVERAL_USES, lambda: conv_and_norm(Several), ("block.conv", "block")),
    Case(Reason.SHARED, lambda: conv_and_norm(Shared), ("block.conv", "allow_copies"), options={"allow_copies": False}),
    Case(Reason.HOOKED, hooked, ("block.conv", "remove")),
    Case(Reason.COMPUTED, lambda: conv_and_norm(Computed, weight=parameter(4, 3, 3, 3)), ("weight", "block")),
    Case(Reason.MUTATED, lambda: conv_and_norm(Changed), ("running_mean of block.norm", "in place")),
    Case(
        Reason.NOT_PER_CHANNEL,
        lambda: net(trained(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm2d(3)))),
        ("block.0", "axis"),
        "block.1",
    ),
    Case(
        Reason.UNKNOWN_SHAPE,
        lambda: net(Unknown(weight=parameter(4, 3, 3, 3), **statistics()).eval()),
        ("example_inputs", "block"),
        "block",
        {"guards": False},
    ),
    Case(Reason.NOT_FLOATING, complex_weight, ("complex64", "block.conv")),
    Case(Reason.PROMOTES, promoting, ("float32", "float64")),
    Case(Reason.NOT_FINITE, overflowing, ("block.conv", "float16")),
    Case(Reason.NO_VALUES, on_meta, ("meta", "block.conv")),
    Case(Reason.OPAQUE, lambda: conv_and_norm(Branches), ("block", "example_inputs")),
    Case(
        Reason.BRANCHES,
        lambda: conv_and_norm(Leaves),
        ("block", "may branch", "submodule of its own"),
        options={"example_inputs": values(*IMAGE)},
    ),
    Case(Reason.REACHED_INTO, lambda: net(Reads(inner=layers())), ("block.inner.conv",), "block.inner.norm"),
    Case(Reason.NOT_CALLED, unused, ("remove it",), "norm"),
    Case(
        Reason.DIFFERS,
        cancelling,
        ("relative error", "example inputs"),
        options={"example_inputs": values(*IMAGE, dtype=torch.float32)},
    ),
    Case(Reason.OWN_FORWARD, lambda: conv_and_norm(Twice), ("structure='graph'",), options={"structure": "module"}),
]
