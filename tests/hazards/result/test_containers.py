"""Hazard 29: containers of classes of the user's, into which a forward writes."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from torch import Tensor

from fxfuse import fx_fuse
from tests.hazards.blocks import block
from tests.support.helpers import Model, trained, unchanged, values


class Log(dict[str, Any]):
    """A container of a class of its own."""


class Steps(list[Any]):
    """The same."""


class KeepsInLog(Model):
    def forward(self, x: Tensor) -> Tensor:
        self.counter["calls"] += 1
        self.steps.append(x)
        self.log["last"] = y = self.block(x)
        return y


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("shape", [None, (2, 3, 6, 6)])
def test_containers_of_the_users_classes_are_as_they_were(shape: tuple[int, ...] | None, filled: bool) -> None:
    content: Any = {"first": 1} if filled else {}
    model: Any = trained(
        KeepsInLog(block=block(), counter=collections.Counter(content), log=Log(content), steps=Steps(content))
    )
    example = None if shape is None else values(*shape)
    with unchanged(model):
        fused: Any = fx_fuse(model, example)
    assert [model.counter, model.log, model.steps] == [collections.Counter(content), content, list(content)]
    fused(torch.ones(2, 3, 6, 6, dtype=torch.float64))
    assert fused.counter["calls"] == 1
    assert list(fused.log)[-1] == "last"
