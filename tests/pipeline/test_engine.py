"""The engine: what is asked before an edit, what is told of norms that nobody asked for, and the nodes of decisions."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from fxfuse import Report, explain, fx_fuse
from fxfuse.edit.editor import Editor
from fxfuse.extend import DEFAULT_RULES, Fold, Graph, Merge, Plan, Reason, Refusal, require
from fxfuse.pipeline.engine import run
from tests.support.helpers import Model, assert_same, trained, values

if TYPE_CHECKING:
    import pytest
    from torch import Tensor

    from tests.support.helpers import Structure


def layers() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1), nn.BatchNorm2d(2)))


def editor_of(model: nn.Module) -> Editor:
    return Editor(Graph(fx.symbolic_trace(copy.deepcopy(model))))


X = values(2, 3, 8, 8)


def test_every_plan_is_shown_to_every_veto_before_the_edit() -> None:
    editor, seen = editor_of(layers()), list[tuple[type, bool]]()

    def look(plan: Plan) -> None:
        seen.append((type(plan), any(plan is applied for applied in editor.plans)))

    decisions = run(editor, DEFAULT_RULES, [look, look])
    assert all(decision.folded for decision in decisions)
    assert [kind for kind, _ in seen].count(Fold) == 4
    assert [kind for kind, _ in seen].count(Merge) == 2
    assert not any(done for _, done in seen)


def test_what_is_vetoed_is_not_done_and_told_with_its_reason() -> None:
    model = layers()
    editor = editor_of(model)
    kept = next(node for node in editor.graph.nodes if node.target == "1")

    def keep_the_first(plan: Plan) -> None:
        require(kept not in plan.removed, Reason.OWN_FORWARD, value="1")

    decisions = run(editor, DEFAULT_RULES[1:3], [keep_the_first])
    assert [(d.path, d.into, d.reason) for d in decisions] == [("3", ("2",), None), ("1", (), Reason.OWN_FORWARD)]
    assert editor.graph.module(kept) is not None
    assert {node for plan in editor.plans for node in plan.nodes}.isdisjoint([kept])
    editor.graph_module.recompile()
    assert_same(model, editor.graph_module, X)


def test_a_veto_of_everything_leaves_the_graph_as_it_was() -> None:
    editor = editor_of(layers())
    before = [(node, node.args, node.target) for node in editor.graph.nodes]

    def never(plan: Plan) -> None:
        raise Refusal(Reason.OWN_FORWARD, value=plan.writes[0].call.path)

    decisions = run(editor, DEFAULT_RULES, [never])
    assert {d.reason for d in decisions} == {Reason.OWN_FORWARD}
    assert [(node, node.args, node.target) for node in editor.graph.nodes] == before
    assert editor.plans == []


class Written(Model):
    """A layer norm between linear layers, and norms of all kinds that no rule below folds."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.tail(self.bare(torch.sigmoid(x))))


def norms() -> Written:
    bare = nn.LayerNorm(4, elementwise_affine=False)
    return trained(Written(bare=bare, tail=nn.LayerNorm(4), last=nn.Linear(4, 2)))


def test_a_norm_is_not_asked_about_where_a_fold_rule_is_missing(structure: Structure) -> None:
    report = explain(norms(), values(3, 4), rules=["fold_upstream"], structure=structure)
    assert [(d.path, d.reason, d.rule) for d in report.skipped] == [("tail", Reason.NOT_ASKED, "rules")]
    told = explain(layers(), rules=["merge_branches"], structure=structure).by_reason()
    assert told == {Reason.NOT_ASKED: 2}


def test_nobody_is_told_about_a_norm_without_a_weight_or_one_that_handed_it_on() -> None:
    report = explain(norms(), values(3, 4), rules=["fold_downstream"])
    assert [d.path for d in report.folded] == ["tail"]
    assert not report.skipped


def test_rules_that_nobody_asked_for_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_graph: Graph, _node: fx.Node) -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr("fxfuse.pipeline.engine.fold_upstream", never)
    assert explain(layers(), rules=["merge_chain"]).by_reason() == {Reason.NOT_ASKED: 2}


def test_a_decision_knows_its_nodes_while_the_pass_runs() -> None:
    editor = editor_of(layers())
    by_target = {str(node.target): node for node in editor.graph.nodes}
    decisions = run(editor, DEFAULT_RULES[1:3])
    told = {decision.path: decision.nodes for decision in decisions}
    assert told == {"1": (by_target["1"], by_target["0"]), "3": (by_target["3"], by_target["2"])}


def test_a_report_holds_no_node(structure: Structure) -> None:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.BatchNorm2d(4)
    fused = fx_fuse(trained(nn.Sequential(*layers)), X, structure=structure)
    report = Report.of(fused)
    assert {decision.nodes for decision in report.decisions} == {()}
    for other in (copy.deepcopy(report), pickle.loads(pickle.dumps(report)), Report.of(copy.deepcopy(fused))):
        assert other == report
        assert other.to_dict() == report.to_dict()
    assert all("nodes" not in decision for decision in report.to_dict()["folded"])
