"""``fuse_graph``: in place, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fuse_graph
from fxfuse.rules import DEFAULT_RULES
from fxfuse.rules.drop_noops import drop_noops
from tests.forms.pipelines import Vectors, conv_norm, decomposed_graph, described, exported, traced, with_inputs
from tests.support.graph_reading import called, count_norms
from tests.support.helpers import Model, assert_equal, run, trained, unchanged, values
from tests.support.samples import error_of, only, parameter

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)


# -- fuse_graph


@pytest.mark.parametrize("capture", [traced, exported, decomposed_graph])
def test_it_folds_in_place(capture: Callable[[nn.Module], fx.GraphModule]) -> None:
    model, x = conv_norm(), values(*IMAGE)
    graph_module = capture(model)
    with unchanged(model):
        report = fuse_graph(graph_module)
    assert Report.of(graph_module) is report
    assert len(report.folded) == 1
    assert count_norms(graph_module) == 0
    assert_equal(run(model, (x,)), run(graph_module, (x,)))
    assert not fuse_graph(graph_module).folded
    graph_module.graph.lint()
    graph_module.recompile()
    assert_equal(run(model, (x,)), run(graph_module, (x,)))


def test_metadata_without_a_stack_of_modules() -> None:
    graph_module = traced(conv_norm())
    for node in graph_module.graph.nodes:
        node.meta["nn_module_stack"] = None  # as Dynamo writes for some functions
    assert len(fuse_graph(graph_module).folded) == 1


def test_the_modules_of_the_model_are_not_those_that_were_changed() -> None:
    """A trace shares the modules of the model, which a fold in the graph must not reach."""
    model = conv_norm()
    graph_module = traced(model)
    fuse_graph(graph_module)
    assert model.get_parameter("0.weight") is model[0].weight
    assert "0.bias" not in model.state_dict()
    assert graph_module.get_submodule("0") is not model[0]
    assert graph_module.get_submodule("2") is model[2]


def test_options() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)))
    graph_module = traced(model)
    assert not fuse_graph(graph_module, rules=[])
    assert [n.op for n in graph_module.graph.nodes].count("call_module") == 3
    assert fuse_graph(graph_module, rules=[rule for rule in DEFAULT_RULES if rule is not drop_noops]).folded
    assert [n.op for n in graph_module.graph.nodes].count("call_module") == 2


class Shared(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.conv(x)


def test_an_assumption_is_refused_without_guards() -> None:
    model = Vectors(weight=parameter(4, 3), mean=values(4), var=values(4).exp()).eval()
    assert fuse_graph(traced(model)).folded[0].assumed
    assert only(fuse_graph(traced(model), guards=False).skipped).reason is Reason.UNKNOWN_SHAPE


def test_copies_are_refused() -> None:
    model = trained(Shared(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    assert fuse_graph(traced(model)).copied_bytes > 0
    assert only(fuse_graph(traced(model), allow_copies=False).skipped).reason is Reason.SHARED


# -- graphs whose parameters are inputs


def test_placeholders_stay_and_the_folded_weights_become_parameters() -> None:
    model, x = conv_norm(), values(*IMAGE)
    graph_module, constants, call = with_inputs(model)
    placeholders = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
    assert fuse_graph(graph_module, constants).folded
    assert [node.name for node in graph_module.graph.nodes if node.op == "placeholder"] == placeholders
    assert sorted(p.shape for p in graph_module.parameters()) == [(4,), (4, 3, 3, 3)]
    assert_equal(run(model, (x,)), call(x))
    assert not fuse_graph(graph_module, constants).folded


def test_what_is_not_folded_is_still_read_from_the_input() -> None:
    model, x = trained(nn.Sequential(*conv_norm(), nn.Conv2d(4, 2, 1))), values(*IMAGE)
    graph_module, constants, call = with_inputs(model)
    fuse_graph(graph_module, constants)
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(2)
    assert_equal(run(model, (x,)), call(x))


def test_without_constants_nothing_is_folded() -> None:
    graph_module, _, _ = with_inputs(conv_norm())
    before = called(graph_module)
    assert not fuse_graph(graph_module).folded
    assert set(before) - set(called(graph_module)) == set()


NUMBERED: dict[Any, Tensor] = {1: values(3)}
WRONG: list[tuple[str, Callable[[dict[str, Any], str], dict[str, Any]], list[str]]] = [
    ("name", lambda found, _name: {**found, "weights": values(3)}, ["'weights'", "no placeholder", "arg0_1"]),
    ("type", lambda found, name: {**found, name: [1.0]}, ["is no tensor but list"]),
    ("none", lambda found, name: {**found, name: None}, ["is no tensor but NoneType"]),
    ("shape", lambda found, name: {**found, name: values(5, 3, 3, 3)}, ["(5, 3, 3, 3)", "(4, 3, 3, 3)"]),
    ("axes", lambda found, name: {**found, name: values(4)}, ["(4,)", "(4, 3, 3, 3)"]),
    ("number", lambda found, _name: {**found, **NUMBERED}, ["1", "no placeholder"]),
]


@pytest.mark.parametrize(("spoil", "words"), [(s, w) for _, s, w in WRONG], ids=[name for name, _, _ in WRONG])
def test_wrong_constants(spoil: Callable[[dict[str, Any], str], dict[str, Any]], words: list[str]) -> None:
    graph_module, constants, _ = with_inputs(conv_norm())
    before = described(graph_module)
    sentence = error_of(lambda: fuse_graph(graph_module, spoil(constants, next(iter(constants)))))
    assert all(word in sentence for word in [*words, "Nothing was changed"]), sentence
    assert described(graph_module) == before


@pytest.mark.parametrize("constants", [3, ["arg0_1"], "arg0_1"])
def test_constants_that_are_no_dict(constants: Any) -> None:
    graph_module, _, _ = with_inputs(conv_norm())
    before = described(graph_module)
    assert "Nothing was changed" in error_of(lambda: fuse_graph(graph_module, constants))
    assert described(graph_module) == before


def test_constants_of_a_shape_that_nothing_could_contradict() -> None:
    """A graph that says nothing of its values: a norm of five channels behind a convolution of four stays."""
    graph = fx.Graph()
    x, weight, mean, variance = map(graph.placeholder, ("x", "weight", "mean", "variance"))
    norm = graph.call_function(F.batch_norm, (graph.call_function(F.conv2d, (x, weight)), mean, variance))
    graph.output(norm)
    graph_module = fx.GraphModule(nn.Module(), graph)
    given = {"weight": values(4, 3, 3, 3), "mean": values(5), "variance": values(5).exp()}
    assert only(fuse_graph(graph_module, given).skipped).reason is Reason.NOT_PER_CHANNEL
    given = {"weight": values(4, 3, 3, 3), "mean": values(4), "variance": values(4).exp()}
    inputs = (values(*IMAGE), *given.values())
    expected = run(graph_module, inputs)
    assert fuse_graph(graph_module, given).folded
    assert_equal(expected, run(graph_module, inputs))


@pytest.mark.parametrize("other", [None, 3, nn.ReLU(), fx.Graph()], ids=lambda other: type(other).__name__)
def test_no_graph(other: Any) -> None:
    sentence = error_of(lambda: fuse_graph(other))
    assert "torch.fx.GraphModule" in sentence
    assert type(other).__name__ in sentence
