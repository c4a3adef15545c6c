"""Rules that a user writes: a function or an object that reads the graph and answers with a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from fxfuse import FuseError, Reason, Report, fx_fuse
from fxfuse.extend import DEFAULT_RULES, Linear, Plan, Write, require
from tests.support.helpers import assert_equal, assert_same, run, trained, unchanged, values

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.extend import Graph
    from tests.support.graph_forms import Form
    from tests.support.helpers import Structure


def calls(graph: Graph, node: fx.Node, name: str) -> bool:
    """Whether a node is a call of the operator of that name."""
    row = graph.operator(node)
    return row is not None and row.name == name


def drop_second_relu(graph: Graph, node: fx.Node) -> Plan | None:
    """``relu(relu(x))`` becomes ``relu(x)``."""
    if not calls(graph, node, "relu"):
        return None
    value = graph.read(node).input
    return Plan(bypass=((node, value),)) if calls(graph, value, "relu") else None


def drop_relu(graph: Graph, node: fx.Node) -> Plan | None:
    """Wrong: it changes what the model computes."""
    if not calls(graph, node, "relu"):
        return None
    graph.require_changeable(node)
    return Plan(bypass=((node, graph.read(node).input),))


def drop_relu_for_good(graph: Graph, node: fx.Node) -> Plan | None:
    """Wrong, and it does not ask whether it may."""
    return Plan(bypass=((node, graph.read(node).input),)) if calls(graph, node, "relu") else None


class Round:
    """Rounds every weight to multiples of a step."""

    def __init__(self, step: float) -> None:
        self.step = step

    def __call__(self, graph: Graph, node: fx.Node) -> Plan | None:
        if not graph.plays(node, Linear):
            return None
        view = graph.view(node)
        assert isinstance(view, Linear)
        graph.require_changeable(node)
        rounded = (view.weight / self.step).round() * self.step
        return Plan(writes=(Write(view.call, {"weight": rounded}),))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU(), nn.Conv2d(4, 2, 3)))


X = 9 * values(2, 3, 8, 8)  # so that both ends of the ReLU are met


def test_a_function_is_tried_beside_the_others_in_every_form(form: Form) -> None:
    model = network()
    fused = form.fuse(model, (X,), rules=(*DEFAULT_RULES, drop_second_relu))
    assert_equal(run(model, (X,)), fused.run(X))
    assert [d.rule for d in fused.report.folded] == ["fold_upstream", "drop_second_relu"]


def test_the_class_is_kept_by_a_rule_of_ones_own() -> None:
    model = network()
    fused = fx_fuse(model, X, rules=[drop_second_relu], structure="module")
    assert [type(layer).__name__ for layer in fused.children()] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "Identity",
        "Conv2d",
    ]
    assert_same(model, fused, X)


def test_what_goes_into_nothing_is_told_as_removed() -> None:
    (row,) = [line for line in str(Report.of(fx_fuse(network(), rules=[drop_second_relu]))).splitlines() if "3" in line]
    assert row.split() == ["3", "ReLU", "removed", "traced"]


def test_an_object_goes_by_the_name_of_its_class(structure: Structure) -> None:
    model = network()
    fused = fx_fuse(model, rules=[Round(0.25)], structure=structure)
    told = [(d.rule, d.path, d.kind, d.into, d.detail) for d in Report.of(fused).folded]
    assert told == [("Round", n, "Conv2d", (n,), "") for n in ("0", "4")]
    assert torch.equal(fused.get_parameter("0.weight"), model.get_parameter("0.weight").div(0.25).round() * 0.25)


def test_example_inputs_catch_a_rule_that_is_wrong() -> None:
    model = network()
    fused = fx_fuse(model, X, rules=["fold_upstream", drop_relu])
    assert_same(model, fused, X)
    report = Report.of(fused)
    assert [d.path for d in report.folded] == ["1", "3"]  # the second one does nothing


def test_example_inputs_catch_a_rule_that_does_not_ask() -> None:
    with pytest.raises(FuseError, match="differs from the model on the example inputs, whatever is folded"):
        fx_fuse(network(), X, rules=[drop_relu_for_good])


def refuses(graph: Graph, node: fx.Node) -> Plan | None:
    require(not calls(graph, node, "batch_norm"), Reason.WOULD_GROW, value="the table", detail="by a leg")
    return None


def test_a_refusal_is_in_the_report() -> None:
    (left,) = Report.of(fx_fuse(network(), rules=[refuses])).skipped
    assert (left.rule, left.path, left.reason) == ("refuses", "1", Reason.WOULD_GROW)
    assert left.detail.startswith("the table would grow by a leg")


def gives_a_number(_graph: Graph, _node: fx.Node) -> Any:
    return 7


def gives_nothing_to_do(_graph: Graph, _node: fx.Node) -> Plan:
    return Plan()


def raises(_graph: Graph, _node: fx.Node) -> Plan:
    raise ValueError("no such table")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (gives_a_number, "The rule gives_a_number returned 7"),
        (gives_nothing_to_do, "The rule gives_nothing_to_do returned Plan("),
        (raises, "The rule raises failed (ValueError: no such table)"),
    ],
)
def test_a_rule_that_fails_is_named(rule: Any, expected: str) -> None:
    model = network()
    with unchanged(model), pytest.raises(FuseError) as caught:
        fx_fuse(model, rules=[rule])
    assert str(caught.value).startswith(expected)
    assert "othing was changed" in str(caught.value)
    assert "fault of fxfuse" not in str(caught.value)


def test_rules_of_ones_own_and_names_go_together() -> None:
    fused = fx_fuse(network(), rules=["fold_upstream", drop_second_relu])
    assert [d.rule for d in Report.of(fused).folded] == ["fold_upstream", "drop_second_relu"]
    assert isinstance(fused, torch.fx.GraphModule)
