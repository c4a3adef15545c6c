"""Norms as a trace down to ATen finds them on a GPU: what folds and merges is what does on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fuse_graph
from tests.operators.gpu_norms import CUDNN  # with a kernel for the CPU
from tests.rules.merge_cases import CHAINS, STACKS, SUMS, Case, calls
from tests.support.graph_forms import made
from tests.support.helpers import Model, assert_equal, trained, values


def fused(model: nn.Module, x: Tensor, *, on_gpu: bool, **options: Any) -> tuple[fx.GraphModule, Report, Tensor]:
    """The graph after the pass, what the pass says of it, and what it gives."""
    graph_module, state = made(model, (x,))
    for node in graph_module.graph.nodes:
        if on_gpu and node.target is torch.ops.aten.native_batch_norm.default:
            node.target = CUDNN
    graph_module.recompile()
    names = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
    report = fuse_graph(graph_module, dict(zip(names, state.values(), strict=False)), **options)
    with torch.no_grad():
        return graph_module, report, graph_module(state, x)


@pytest.mark.parametrize("case", SUMS + CHAINS + STACKS, ids=lambda case: case.name)
def test_layers_merge_as_on_the_cpu(case: Case) -> None:
    model, x = case.model(), values(*case.shape)
    expected = model(x)
    graph_module, _, given = fused(model, x, on_gpu=True, **case.options)
    assert_equal(expected.detach(), given)
    assert calls(graph_module) == case.left


class Parts(Model):
    """A norm that stays, since its input is used besides, of one of two layers that could be one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z: Tensor = self.norm(y) * y + self.b(x).relu()
        return z


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_part_of_a_larger_value_is_not_given_to_a_norm_of_the_gpu(on_gpu: bool) -> None:
    model = trained(Parts(a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    x = values(2, 3, 5, 5)
    graph_module, report, given = fused(model, x, on_gpu=on_gpu, rules=["stack_parallel"])
    assert_equal(model(x).detach(), given)
    assert calls(graph_module)[:2] == ((2, 1) if on_gpu else (1, 1))
    told = {decision.reason for decision in report.decisions if decision.rule == "stack_parallel"}
    assert told == {Reason.LAYOUT if on_gpu else None}
