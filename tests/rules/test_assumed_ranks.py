"""Numbers of axes that are only usual: no norm gets one that it raises for, and a check demands what is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import assert_same, trained
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure


class Between(nn.Module):
    """A function between a layer and what follows."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor], Tensor], *others: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.function = function
        self.others = nn.Sequential(*others)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.others(self.function(self.layer(x)))
        return y


def mean(x: Tensor) -> Tensor:
    return x.mean(1)


def flattened(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


class Code(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("function", [mean, flattened])
def test_a_norm_says_how_many_axes_there_are_before(function: Callable[[Tensor], Tensor], structure: Structure) -> None:
    model, x = trained(Between(nn.Linear(4, 6), function, nn.BatchNorm1d(6))), randn(3, 5, 4)
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, x)
    (decision,) = Report.of(fused).folded
    assert "assumes 2 axes there" in decision.detail
    with pytest.raises(ValueError, match="for inputs with 2 axes there"):
        fused(randn(3, 7, 5, 4))


def test_what_a_norm_would_raise_for_is_not_assumed_elsewhere(structure: Structure) -> None:
    # The linear layer gives three axes, so that the first norm goes along the second of them.
    model = trained(Between(nn.Linear(4, 6), nn.BatchNorm1d(5), nn.ReLU(), Code(mean), nn.BatchNorm1d(6)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, randn(3, 5, 4))
    assert {d.reason for d in Report.of(fused).skipped} == {Reason.NOT_PER_CHANNEL, Reason.NOT_LINEAR}


def test_too_many_axes_are_refused() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm1d(6)))
    assert {d.reason for d in Report.of(fx_fuse(model)).skipped} == {Reason.NOT_PER_CHANNEL}
