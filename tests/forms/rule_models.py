"""Models of which each rule's work is written down, as text, in every form of graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.helpers import Model, trained, values
from tests.support.samples import parameter

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)


class ConvNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class TwoLayers(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Constants(Model):
    def forward(self, x: Tensor) -> Tensor:
        return 1 - self.conv(x) * self.gain / 4 + self.shift


class Standardised(Model):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return torch.relu(F.conv2d(x, weight))


class Dropped(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.identity(self.dropout(self.conv(x))))


def conv_norm() -> nn.Module:
    return trained(ConvNorm(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))


def linear_norm() -> nn.Module:
    return trained(ConvNorm(conv=nn.Linear(3, 4), bn=nn.BatchNorm1d(4)))


def transposed_norm() -> nn.Module:
    return trained(ConvNorm(conv=nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), bn=nn.BatchNorm2d(6)))


def two_layers() -> nn.Module:
    first = {"conv1": nn.Conv2d(3, 4, 3, bias=False), "bn1": nn.BatchNorm2d(4)}
    return trained(TwoLayers(**first, conv2=nn.Conv2d(4, 5, 1, bias=False), bn2=nn.BatchNorm2d(5)))


def constants() -> nn.Module:
    model = Constants(conv=nn.Conv2d(3, 4, 3), gain=parameter(4, 1, 1), shift=values(4, 1, 1))
    return model.double().eval()


def standardised() -> nn.Module:
    return Standardised(weight=parameter(4, 3, 3, 3)).eval()


def dropped() -> nn.Module:
    layers = {"dropout": nn.Dropout(), "identity": nn.Identity(), "bn": nn.BatchNorm2d(4)}
    return trained(Dropped(conv=nn.Conv2d(3, 4, 3), **layers))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv_norm": (conv_norm, IMAGE),
    "linear_norm": (linear_norm, (5, 3)),
    "transposed_norm": (transposed_norm, (2, 4, 5, 5)),
    "two_layers": (two_layers, IMAGE),
    "constants": (constants, IMAGE),
    "standardised": (standardised, IMAGE),
    "dropped": (dropped, IMAGE),
}
