"""Hazards 14, 15: a hook may compute a parameter before each call, so that there is no constant to fold into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fxfuse import fx_fuse
from tests.hazards.blocks import Functional
from tests.support.helpers import Model, Structure, assert_same, folds, trained, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Callable


def functional(**more: nn.Parameter) -> Any:
    return Functional(weight=nn.Parameter(values(4, 3, 1, 1)), gain=nn.Parameter(values(4, 1, 1)), **more)


def pruned() -> Any:
    return prune.l1_unstructured(functional(), "weight", 0.5)


def written() -> Any:
    """The hook writes into the parameter itself."""
    module = functional(raw=nn.Parameter(values(4, 3, 1, 1)))

    def write(inner: Any, _: Any) -> None:
        inner.weight.data.copy_(inner.raw.data.sign())

    module.register_forward_pre_hook(write)
    return module


class Untraceable(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.sum() < 1e9 else x


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("make", [pruned, written])
@pytest.mark.parametrize("within", [lambda m: nn.Sequential(m, nn.ReLU()), lambda m: Untraceable(block=m)])
def test_a_parameter_that_a_hook_computes_is_left(
    structure: Structure, make: Callable[[], Any], within: Callable[[Any], nn.Module], example: bool
) -> None:
    model, inputs = trained(within(make())), values(2, 3, 6, 6)
    model(inputs)  # the hook has run once, as in every model that was used
    chosen = None if isinstance(model, Untraceable) else structure
    with unchanged(model):
        fused = fx_fuse(model, inputs if example else None, structure=chosen)
    assert folds(fused) == []
    assert_same(model, fused, inputs)


def test_a_model_whose_own_hook_computes_a_parameter_is_left() -> None:
    model, inputs = trained(pruned()), values(2, 3, 6, 6)
    fused = fx_fuse(model)
    assert folds(fused) == []
    with torch.no_grad():
        assert torch.equal(model(inputs), fused(inputs))
