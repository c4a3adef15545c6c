"""Graphs that the pass does not understand: it never raises, and leaves them byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import FusePass, Report
from tests.forms.pipelines import conv_norm, described, exported
from tests.support.helpers import Model, assert_equal, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)


def unknown(_x: Any, *_others: Any) -> Any:
    """An operation of somebody's compiler."""
    return None


def graph_of(*steps: Any, output: bool = True) -> fx.GraphModule:
    """A graph that calls functions, each on the result of the one before."""
    graph = fx.Graph()
    value: Any = graph.placeholder("x")
    for function, *others in steps:
        value = graph.call_function(function, (value, *others))
    if output:
        graph.output(value)
    return fx.GraphModule(nn.Module(), graph)


def no_output() -> fx.GraphModule:
    return graph_of((torch.relu,), output=False)


def empty() -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(None)
    return fx.GraphModule(nn.Module(), graph)


def returns_nothing() -> fx.GraphModule:
    graph = fx.Graph()
    graph.placeholder("x")
    graph.output(())
    return fx.GraphModule(nn.Module(), graph)


def wrong_arguments() -> fx.GraphModule:
    """Known operations, called with what they do not take."""
    ops = torch.ops.aten
    return graph_of((ops.conv2d.default, 3, None), (ops.batch_norm.default, None, None, None, None, False), (ops.mm, 2))


def norms_without_values() -> fx.GraphModule:
    graph = fx.Graph()
    x = graph.placeholder("x")
    norm = graph.call_function(torch.ops.aten.native_batch_norm.default, (x, None, None, x, x, False, 0.1, 1e-5))
    graph.output(norm)
    return fx.GraphModule(nn.Module(), graph)


GRAPHS: list[Callable[[], fx.GraphModule]] = [
    no_output,
    empty,
    returns_nothing,
    wrong_arguments,
    norms_without_values,
    lambda: graph_of((unknown, {"a": [1, None]}), (unknown, slice(1, 2))),
    lambda: graph_of((torch.ops.aten.mul.Tensor,)),
    lambda: graph_of((torch.addmm, 1, 2), (torch.mm, 3), (torch.convolution,)),
]


@pytest.mark.parametrize("number", range(len(GRAPHS)))
def test_a_graph_that_it_does_not_understand(number: int) -> None:
    graph_module = GRAPHS[number]()
    before = described(graph_module)
    fuse = FusePass()
    result = fuse.call(graph_module)
    assert not result.modified
    assert result.graph_module is graph_module
    assert not fuse.report.folded
    assert described(graph_module)[1:3] == before[1:3]


class TwoItems(Model):
    """Of the norm's tuple more is read than the value."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.bn
        found = torch.native_batch_norm(
            self.conv(x), norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, 1e-5
        )
        return found[0], found[1]


class WholeTuple(TwoItems):
    def forward(self, x: Tensor) -> Any:
        norm = self.bn
        return torch.native_batch_norm(
            self.conv(x), norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, 1e-5
        )


@pytest.mark.parametrize("cls", [TwoItems, WholeTuple])
def test_a_tuple_of_which_more_is_read_than_the_value(cls: type[Model]) -> None:
    model = trained(cls(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    graph_module = fx.symbolic_trace(model)
    before = str(graph_module.graph)
    fuse = FusePass()
    fuse(graph_module)
    assert not fuse.report.folded
    assert str(graph_module.graph) == before
    x = values(*IMAGE)
    expected, given = run(model, (x,)), run(graph_module, (x,))
    assert_equal(expected[0], given[0])
    assert len(expected) == len(given)


def test_norms_in_training_mode() -> None:
    graph_module = fx.symbolic_trace(conv_norm().train())
    before = described(graph_module)
    fuse = FusePass()
    assert not fuse.call(graph_module).modified
    assert "training mode" in str(fuse.error)
    assert described(graph_module) == before


@pytest.mark.parametrize("training", [False, True])
def test_one_norm_in_training_mode(training: bool) -> None:
    model = nn.Sequential(conv_norm(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)).double().eval()
    model[2].train(training)
    graph_module = fx.symbolic_trace(model)
    fuse = FusePass()
    fuse(graph_module)
    assert len(fuse.report.folded) == 2 - training
    assert [d.path for d in fuse.report.skipped] == ["2"] * training
    x = values(*IMAGE)
    norm: Any = model.get_submodule("2")
    norm.momentum = 0.0  # both share its statistics, which a run would change
    assert_equal(run(model, (x,)), run(graph_module, (x,)))


def test_an_exported_graph_in_training_mode() -> None:
    model = conv_norm().train()
    graph_module = exported(model)
    before = str(graph_module.graph)
    fuse = FusePass()
    assert not fuse.call(graph_module).modified
    assert not Report.of(graph_module).folded if fuse.error is None else "training" in str(fuse.error)
    assert str(graph_module.graph) == before
