"""Parts of one value, and calls that give several results: what is beside what, and what is no value at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason
from fxfuse.operators.roles import Carrier
from fxfuse.operators.slices import Piece
from fxfuse.report.reasons import Refusal
from tests.operators.calls import Single
from tests.operators.sample import IMAGE, LINE, along
from tests.operators.views import traced
from tests.support.samples import randn

Function = Callable[[Tensor], Any]
X = randn(*IMAGE)
aten = torch.ops.aten


class Several(nn.Module):
    """Several functions of one value."""

    def __init__(self, *functions: Function) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> list[Any]:
        return [function(x) for function in self.functions]


def read_by_the_output(model: nn.Module) -> list[Any]:
    """The views of what a model returns."""
    graph = traced(model, (X,))
    (output,) = graph.graph_module.graph.find_nodes(op="output")
    return [graph.view(node) for node in output.all_input_nodes]


PAIRS: list[tuple[Function, Function, bool]] = [
    (lambda x: x.chunk(3, 1)[0], lambda x: x.chunk(3, 1)[1], True),
    (lambda x: x.chunk(3, 1)[-1], lambda x: x.chunk(3, 1)[2], False),
    (lambda x: x.split(3, 1)[0], lambda x: x.split([3, 5], -3)[-1], True),
    (lambda x: x.unbind(1)[3], lambda x: x[:, 3:5], False),
    (lambda x: x.unbind(1)[3], lambda x: x[:, 4:], True),
    (lambda x: x[:, :3], lambda x: x[:, 3:], True),
    (lambda x: x[:, :4], lambda x: x[:, 3:], False),
    (lambda x: x[:, -1], lambda x: x[:, 7], False),
    (lambda x: x[:, -1], lambda x: x[:, :-1], True),
    (lambda x: x.narrow(1, 0, 2), lambda x: x.select(1, 2), True),
    (lambda x: x[:, :3], lambda x: x[:, :, 3:], False),  # along another axis
    (lambda x: x[0, :2], lambda x: x[0, 2:], False),  # along two, which is not looked into
    (lambda x: x[:, :3], lambda x: x.clone()[:, 3:], False),  # of another value
    (lambda x: x[:, :3], torch.relu, False),
]


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
def test_parts_are_beside_each_other_if_they_have_nothing_in_common(
    one: Function, other: Function, expected: bool
) -> None:
    first, second = read_by_the_output(Several(one, other))
    assert isinstance(first, Piece)
    assert first.is_beside(second) is expected
    if isinstance(second, Piece):
        assert second.is_beside(first) is expected


POOLS: list[nn.Module] = [
    *(nn.MaxPool2d(2, return_indices=True), nn.MaxPool1d(2, return_indices=True)),
    *(nn.AdaptiveMaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool1d(2, return_indices=True)),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("way", ["back", "on"])
def test_a_pool_that_gives_indices_lets_nothing_pass(pool: nn.Module, way: str) -> None:
    x = X if "2d" in type(pool).__name__ else randn(*LINE)
    graph = traced(Single(pool), (x,))
    view = graph.view(graph.nodes[1])
    assert isinstance(view, Carrier)
    affine = along(1, positive=True)(x.shape)
    with pytest.raises(Refusal) as raised:
        view.pull(affine) if way == "back" else view.push(affine, view.input)
    assert raised.value.reason is Reason.NOT_LINEAR


def test_the_other_results_of_a_call_may_not_be_used() -> None:
    class Indices(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            pooled = aten.max_pool2d_with_indices.default(x, [2, 2])
            return [pooled[0], pooled[1]]

    view, other = read_by_the_output(Indices())
    assert other is None
    with pytest.raises(Refusal) as raised:
        view.pull(along(1, positive=True)((2, 8, 3, 2)))
    assert raised.value.reason is Reason.SEVERAL_USES


def test_a_list_that_is_not_in_the_graph_lets_nothing_pass() -> None:
    (view,) = read_by_the_output(Several(lambda x: torch.cat(x.split(4, 1), 1)))
    assert isinstance(view, Carrier)
    with pytest.raises(Refusal) as raised:
        view.pull(along(1)(IMAGE))
    assert raised.value.reason is Reason.NOT_LINEAR
