"""Models whose weights are folded in different ways, to be made again with other weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable


class Branches(Model):
    """Kernels that are added, a norm behind them, and a head that no fold changes."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.three(x) + self.one(x) + x)
        return self.head(torch.relu(y).mean((2, 3)))


class Shared(Model):
    """A layer that is called twice, with a norm of its own for each call."""

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.conv(x)) + torch.relu(self.second(self.conv(x)))


class Standardised(Model):
    """A weight that is computed from parameters before each call."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self.norm(torch.conv2d(x, weight, padding=1)) * self.gain


class Pooled(Model):
    """A norm that passes a max-pool if all its scales are positive."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pool(self.conv(x)))


class Attention(Model):
    """A layer norm of which the weight and bias go into three layers."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.q(y) * self.k(y) + self.v(y)


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4)


def conv(size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(4, 4, size, padding=size // 2, bias=size == 3)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(conv(), norm(), nn.ReLU(), conv(1), norm(), nn.ReLU(), conv(1), norm()),
    "downstream": lambda: nn.Sequential(nn.ReLU(), norm(), conv(1), nn.ReLU(), norm(), nn.ConvTranspose2d(4, 4, 2)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2, bias=False), norm(), nn.Sigmoid()),
    "branches": lambda: Branches(three=conv(), one=conv(1), norm=norm(), head=nn.Linear(4, 3)),
    "shared": lambda: Shared(conv=conv(1), first=norm(), second=norm()),
    "standardised": lambda: Standardised(
        weight=nn.Parameter(torch.randn(4, 4, 3, 3)), norm=norm(), gain=nn.Parameter(1 + torch.rand(4, 1, 1))
    ),
    "attention": lambda: Attention(
        norm=nn.LayerNorm(4), q=nn.Linear(4, 4), k=nn.Linear(4, 4, bias=False), v=nn.Linear(4, 4)
    ),
}
IMAGE = (2, 4, 6, 4)


def made(name: str, seed: int) -> nn.Module:
    """A trained model; another seed gives other weights with the same signs."""
    torch.manual_seed(0)
    model = trained(MODELS[name]())
    return other(model, seed) if seed else model


def other(model: nn.Module, seed: int) -> nn.Module:
    """A copy with other weights of the same signs."""
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.5 + torch.rand_like(tensor))
    return model


def fresh(name: str) -> nn.Module:
    """The same model as its constructor makes it."""
    return MODELS[name]().double().eval()
