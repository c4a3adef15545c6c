"""Models in which a norm stays, each for another reason."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse.extend import Graph, Linear, Plan, Write
from tests.support.helpers import Model, trained, values

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
        y: Tensor = self.norm(self.conv(x)) + self.conv(x.sin())
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
    """Has a method beside its forward, which calls the convolution of a part without its norm."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y

    def features(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner.conv(x)
        return y


class Branches(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) if x.sum() > 0 else self.norm(self.conv(-x))
        return y


class Held:
    """An object that nobody knows how to copy, with a module in it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


class InObject(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.held.module(x) if x.shape[0] > 1 else self.norm(x)
        return y


class Viewed(Model):
    """What reads the norm takes no value that is a part of another."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.cat([self.conv(x), self.conv(-x)], 1)[:, 2:6])
        return y.view(-1)


class Twice(Model):
    """The same convolution with a norm and without: one class cannot hold both."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) * self.conv(x)
        return y


class Dilated(Model):
    """Two convolutions of one value, whose taps lie apart."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x) + self.wide(x))
        return y


def conv_and_norm(cls: type[Model], **others: Any) -> nn.Module:
    return net(trained(cls(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), **others)))


def in_object() -> nn.Module:
    block = InObject(inner=layers())
    block.held = Held(block.inner)  # type: ignore[assignment] # no module
    return net(block)


def unused() -> nn.Module:
    block = layers(nn.ReLU())[:2]
    return Net(block=trained(block), norm=nn.BatchNorm2d(4)).eval()


def overflowing() -> nn.Module:
    block = layers(last=nn.BatchNorm2d(4, eps=1e-12)).half()
    block.state_dict()["norm.running_var"].zero_()
    return net(block)


def pruned_in_part() -> nn.Module:
    """A channel was taken from the statistics, and not from the weight and the variance."""
    block = layers()
    norm: Any = block.get_submodule("norm")
    norm.running_mean = norm.running_mean[:3]
    return net(block)


def on_meta() -> nn.Module:
    block = layers()
    block.get_submodule("conv").to("meta")
    return net(block)


class Proven(Model):
    """What follows has four axes, which the norm proves."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rest(torch.relu(self.first(self.conv(x))))
        return y


def proven(*rest: nn.Module) -> nn.Module:
    named = nn.Sequential()
    for module in rest:
        named.add_module("tail" if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) else f"m{len(named)}", module)
    for parameter_ in rest[0].parameters():
        parameter_.data = values(*parameter_.shape)
    return net(trained(Proven(conv=nn.Conv2d(3, 4, 3), first=nn.BatchNorm2d(4), rest=named)))


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


def halves(graph: Graph, node: fx.Node) -> Plan | None:
    """A rule that is wrong, and asks whether the layer may change."""
    if not graph.plays(node, Linear):
        return None
    graph.require_changeable(node)
    call = graph.read(node)
    return Plan(writes=(Write(call, {"weight": call.tensor("weight") / 2}),))
