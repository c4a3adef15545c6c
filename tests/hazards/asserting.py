"""Forwards with assertions.

They are not in a test file, since pytest rewrites the assertions there to something else.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from tests.helpers import Model


class AssertsRank(Model):
    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4
        y = self.conv(x)
        assert y.dim() == 4, f"four axes, not {y.dim()}"
        assert y.shape[1] == 3
        return self.bn(y)


class AssertsClass(Model):
    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor)
        y = self.conv(x)
        assert torch.is_tensor(y)
        return self.bn(y)


class AssertsValues(Model):
    def forward(self, x: Tensor) -> Tensor:
        assert x.abs().max() < 1e6
        return self.bn(self.conv(x))


class AssertsOnOutput(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        assert y.min() > -1e9
        return self.bn(y)


class CatchesAnAssertion(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            assert x.sum() > 0
            y = self.bn(y)
        except AssertionError:
            y = y * 2
        return y


class CatchesInAHelper(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if is_positive(x) else self.conv(x)


class SuppressesAnAssertion(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with contextlib.suppress(AssertionError):
            assert x.sum() > 0
            y = self.bn(y)
        return y


class CatchesEverything(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        try:
            y = self.bn(y).view(4, -1)
        except:  # noqa: E722 - this is the point
            y = y * 2
        return y


def is_positive(x: Tensor) -> bool:
    try:
        assert x.sum() > 0
    except AssertionError:
        return False
    return True
