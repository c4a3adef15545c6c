"""The models of `comparison_cases.py` that are more than a row of layers."""

# ruff: noqa: INP001, D102 - beside a script, and no package; what a forward does, its class says

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 6


def conv(size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution of the usual number of channels."""
    return nn.Conv2d(CHANNELS, CHANNELS, size, **options)


def norm() -> nn.BatchNorm2d:
    """A norm of the usual number of channels."""
    return nn.BatchNorm2d(CHANNELS)


class _One(nn.Module):
    """A convolution and a norm."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.norm = conv(**options), norm()


class _Two(nn.Module):
    """Two convolutions and two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), norm()
        self.other_conv, self.other_norm = conv(), norm()


class SharedConv(_Two):
    """The convolution is called twice, and a norm of its own follows each call."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))) - torch.relu(self.other_norm(self.conv(2 * x)))


class SharedNorm(_Two):
    """The norm follows both convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))) - torch.relu(self.norm(self.other_conv(x)))


class CalledTwice(_One):
    """The pair is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(torch.relu(self.norm(self.conv(x))))))


class CalledAlone(_One):
    """The convolution is also called where no norm follows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))) - torch.relu(self.conv(x + 1))


class TiedWeight(_Two):
    """Two convolutions have one weight, and a norm follows one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.other_conv.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))) - torch.relu(self.other_conv(x))


class ReadTwice(_One):
    """The output of the convolution is read by the norm, and by a sum."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.relu(self.norm(y)) - y


class TwoNormsOfOne(_Two):
    """One output of a convolution is read by two norms."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.relu(self.norm(y)) - torch.relu(self.other_norm(y))


class FunctionalNorm(_One):
    """`F.batch_norm` behind a module."""

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        return F.batch_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias, training=False, eps=n.eps)


class Functional(_One):
    """`F.batch_norm` behind `F.conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        n, c = self.norm, self.conv
        y = F.conv2d(x, c.weight, c.bias)
        return F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)


class Constants(_One):
    """A scale and a shift for each channel, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.scale = nn.Parameter(1 + torch.rand(CHANNELS, 1, 1))
        self.shift = nn.Parameter(1 + torch.rand(CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale + self.shift


class LayerScale(nn.Module):
    """A linear layer and a scale for each channel, in a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)
        self.scale = nn.Parameter(1 + torch.rand(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.linear(x)


class Concatenation(_Two):
    """A norm of two convolutions, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.conv(x), self.other_conv(x)], dim=1))


class SumOfTwo(_Two):
    """A norm of the sum of two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(torch.relu(x)) + self.other_conv(x))


class Residual(_One):
    """A norm of a residual sum."""

    def __init__(self) -> None:
        super().__init__(padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x) + x))


class OtherOrder(_Two):
    """The layers are registered in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()
        del self.conv, self.other_conv, self.norm, self.other_norm
        self.norm = norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


class ActivationBetween(_One):
    """The norm is registered next to the convolution, and the forward has an activation between them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


class NormFirst(_One):
    """The norm is registered behind the convolution, and called before it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(self.norm(x)))


class Unused(_One):
    """The norm is there, and the forward does not call it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class DependsOnData(nn.Module):
    """A forward that decides by the numbers it gets, with a block inside."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(conv(), norm(), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        if bool(x.sum() > 0):
            return x - 1
        return 2 * x


class RepVGG(nn.Module):
    """The block of RepVGG: three branches, one of them nothing but a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Sequential(conv(padding=1), norm())
        self.point = nn.Sequential(conv(1), norm())
        self.identity = norm()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.square(x) + self.point(x) + self.identity(x))


class NormWithActivation(nn.BatchNorm2d):
    """A subclass of `BatchNorm2d` that does more."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        return torch.relu(super().forward(input))


class ConvWithActivation(nn.Conv2d):
    """A subclass of `Conv2d` that does more."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        return torch.relu(super().forward(input))
