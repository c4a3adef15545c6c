"""Forwards with assertions.

They are not in a test file, since pytest rewrites the assertions there to something else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.helpers import Model


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
