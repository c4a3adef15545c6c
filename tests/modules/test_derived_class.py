"""Derived classes: what TorchScript makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.support.helpers import Model, assert_equal, folds, trained, values


class Raw(Model):
    def forward(self, x: Tensor, raw: bool = False) -> Tensor:
        y = self.conv(x)
        return y if raw else self.bn(y)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*(torch.jit|deprecated)")
def test_torchscript_does_not_compile_the_check_of_an_argument_away() -> None:
    model = trained(Raw(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    fused, x = fx_fuse(model, structure="module"), values(2, 3, 6, 6)
    assert folds(fused) == ["bn"]
    scripted: Any = torch.jit.script(fused)
    assert_equal(model(x), scripted(x))
    with pytest.raises(ValueError, match="raw=False"):
        scripted(x, True)
