"""Calls that look like sums of values, or like arithmetic with a constant, and are neither."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.operators.calls import Function, Method, Pair, Stacked
from tests.operators.sample import IMAGE
from tests.operators.views import traced
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from fxfuse.graph.facts import NodeView

X = randn(*IMAGE)
CONSTANT = parameter(*IMAGE)


class ReadTwice(nn.Module):
    """The stack itself is seen as well."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        stack = torch.stack([x, y])
        return stack.sum(0), stack


def first_result(model: nn.Module, *inputs: Tensor) -> NodeView | None:
    """The view of what a model returns first."""
    graph = traced(model, inputs)
    (output,) = graph.graph_module.graph.find_nodes(op="output")
    return graph.view(output.all_input_nodes[0])


NO_SUMS: list[nn.Module] = [
    *(Stacked("sum", 2, 0, axis) for axis in (1, -1, (0, 1), ())),
    *(Stacked("sum", 2, 0, 0, **options) for options in ({"keepdim": True}, {"dtype": torch.float32})),
    Stacked("sum", 2, 0, dim=None),  # of everything
    ReadTwice(),
]


@pytest.mark.parametrize("model", NO_SUMS, ids=str)
def test_a_sum_of_something_else_is_not_read(model: nn.Module) -> None:
    others = [X, X] if isinstance(model, Stacked) else [X]
    assert first_result(model, X, *others) is None


def test_sums_are_read_in_their_place() -> None:
    assert first_result(Stacked("sum", 2, 0), X, X, X) is not None
    assert first_result(Pair(operator.add), X, X, X) is not None


@pytest.mark.parametrize("name", ["mul_", "add_", "sub_", "div_"])
def test_what_writes_into_a_constant_is_not_read(name: str) -> None:
    constant = CONSTANT.detach().clone()
    function: Any = getattr(torch.ops.aten, name).Tensor
    for model in (Method(name, constant, flipped=True), Function(function, constant, flipped=True)):
        assert first_result(model, X) is None
