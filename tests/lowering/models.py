"""Models for the tests of lowering: norms far from the identity, and weights that tell every channel apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse import fx_fuse, lower
from fxfuse.cli.models import randomize
from fxfuse.lowering.lower import lowered
from tests.support.reference_emitter import ReferenceEmitter

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.lowering.module import LoweredModule


class Block(nn.Module):
    """A residual block with another layer on the way past."""

    def __init__(self, inputs: int, channels: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        whole = stride == 1 and inputs == channels
        self.past: nn.Module = (
            nn.Identity() if whole else nn.Sequential(nn.Conv2d(inputs, channels, 1, stride), nn.BatchNorm2d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.past(x)
        return self.relu(y)


class Net(nn.Module):
    """A small residual network."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16, 2, groups), Block(16, 16, 1, groups))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(self.stem(x)))
        return self.fc(x.mean((2, 3)))


def image(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """A random value, the same for the same arguments."""
    return torch.randn(*(shape or (2, 3, 32, 32)), generator=torch.Generator().manual_seed(seed)).to(dtype)


def made(model: nn.Module, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    """The fused model, with random weights and statistics."""
    torch.manual_seed(0)
    randomize(model.eval())
    fused: Any = fx_fuse(model.to(dtype))
    return fused


def fast(model: nn.Module, *inputs: Any, exact_nan: bool = False) -> LoweredModule:
    """The lowered model, which has seen the inputs."""
    result = lower(made(model), tuple(inputs) or None, exact_nan=exact_nan)
    assert result.fallbacks == 0
    return result


def planned(model: nn.Module, *inputs: Any) -> LoweredModule:
    """The same plans in plain torch and in float64."""
    return lowered(made(model, torch.float64), tuple(inputs), exact_nan=False, emitter=ReferenceEmitter())


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest element."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    return float((one - other).detach().abs().max() / other.detach().abs().max())
