"""Numbers of axes that are only usual: no norm gets one that it raises for, and a check demands what is needed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.graph.graph import Graph
from fxfuse.modules.guards import require_rank
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


class Computed(nn.Module):
    """Arithmetic with a constant behind a layer, and maybe norms around it."""

    def __init__(self, layer: nn.Module, *shape: int, before: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.before = before or nn.Identity()
        self.constant = nn.Parameter(randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.before(self.layer(x)) * self.constant
        return y + self.constant


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 3, 5, 4)])
def test_a_constant_needs_no_more_axes_than_it_has(shape: tuple[int, ...], structure: Structure) -> None:
    model = trained(Computed(nn.Linear(4, 6), 1, 6))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, randn(*shape))
    details = [decision.detail for decision in Report.of(fused).folded]
    assert (
        details == ["assumes 2 axes or more there, batch included; a check of that stays; example_inputs prove it"] * 2
    )
    with pytest.raises(ValueError, match="for inputs with 2 axes or more there, batch included, and got one with 1"):
        fused(randn(4))  # the constant would make two axes of it
    assert_same(model, copy.deepcopy(fused), randn(*shape))


def test_a_constant_of_images_needs_a_batch_axis() -> None:
    model = trained(Computed(nn.Conv2d(4, 6, 1), 1, 6, 1, 1))
    fused = fx_fuse(model)
    assert_same(model, fused, randn(2, 4, 3, 5))
    with pytest.raises(ValueError, match="4 axes or more"):
        fused(randn(4, 3, 5))


def test_a_norm_beside_it_needs_just_one_number_of_axes(structure: Structure) -> None:
    model = trained(Computed(nn.Linear(4, 6), 1, 6, before=nn.BatchNorm1d(6)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, randn(3, 4))
    with pytest.raises(ValueError, match="for inputs with 2 axes there"):
        fused(randn(3, 6, 4))


def test_a_number_of_axes_or_more_is_no_number() -> None:
    graph = fx.symbolic_trace(Code(lambda x: require_rank(x, 2, "norm", True)))
    assert all(Graph(graph).rank(node) is None for node in graph.graph.nodes)


def test_without_checks_nothing_is_assumed() -> None:
    assert not Report.of(fx_fuse(trained(Computed(nn.Linear(4, 6), 1, 6)), guards=False)).folded
