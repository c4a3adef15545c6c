"""``drop_noops``: identity and dropout in evaluation mode go, where the graph is the result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Report, fx_fuse
from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.rules import DEFAULT_RULES
from fxfuse.rules.drop_noops import drop_noops
from tests.support.helpers import Model, assert_fuses, assert_same, trained, values
from tests.support.samples import graph_text, lines


def test_before_and_after() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Identity(), nn.ReLU()).double().eval()
    assert graph_text(assert_fuses(model, values(2, 3))) == lines("""
        input_1 = <input>
        _0 = self.0(input_1)
        _3 = self.3(_0)
        return _3
    """)


class Functions(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(x, 0.3, self.training)
        return torch.relu(F.dropout2d(torch.dropout(y, 0.2, train=False), training=False))


def test_functions_before_and_after() -> None:
    assert graph_text(assert_fuses(Functions().eval(), values(2, 3, 4, 4))) == lines("""
        x = <input>
        relu = relu(x)
        return relu
    """)


def test_dropping_is_not_worth_a_line_in_the_report() -> None:
    assert not Report.of(fx_fuse(nn.Sequential(nn.Linear(3, 4), nn.Dropout()).eval())).decisions


def test_a_module_that_keeps_its_class_keeps_its_noops() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["2"], structure="module")
    assert [type(child) for child in fused.children()] == [nn.Conv2d, nn.Dropout, nn.Identity]


def test_a_norm_folds_through_stochastic_depth() -> None:
    ops = pytest.importorskip("torchvision.ops")
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), ops.StochasticDepth(0.5, "batch"), nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), folded=["2"])

    class Trains(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.depth(self.conv(x)))
            return y

    other = trained(Trains(conv=nn.Conv2d(3, 4, 3), depth=ops.StochasticDepth(0.5, "row"), norm=nn.BatchNorm2d(4)))
    other.get_submodule("depth").train()
    assert Report.of(fx_fuse(other)).norms_left


# -- one precondition broken each


@pytest.mark.parametrize(
    "stays",
    [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), AssumedRank(4, "bn"), nn.ReLU()],
    ids=lambda module: type(module).__name__,
)
def test_what_does_something_stays(stays: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), stays, nn.Tanh()).eval()
    stays.train()
    assert "self.1" in graph_text(fx_fuse(model))


class Training(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3)


class Checked(Model):
    def forward(self, x: Tensor) -> Tensor:
        return require_rank(x, 4, "bn")


@pytest.mark.parametrize("cls", [Training, Checked])
def test_functions_that_do_something_stay(cls: type[Model]) -> None:
    assert len(graph_text(fx_fuse(cls().eval())).splitlines()) == 3


def test_a_noop_with_hooks_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity()).eval()
    model[1].register_forward_hook(lambda _module, _args, output: output + 1)
    assert "self.1" in graph_text(fx_fuse(model))
    x = torch.randn(2, 3)
    assert torch.equal(fx_fuse(model)(x), model(x))


def test_without_the_rule_noops_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity()).eval()
    rules = [rule for rule in DEFAULT_RULES if rule is not drop_noops]
    assert "self.1" in graph_text(fx_fuse(model, rules=rules))


def test_a_dropout_of_a_graph_that_does_not_say_its_mode_is_active() -> None:
    """Its default is training; torch.fx notes all arguments, and a graph that is written by hand need not."""
    graph = fx.Graph()
    y = graph.call_module("conv", (graph.placeholder("x"),))
    graph.output(graph.call_module("bn", (graph.call_function(F.dropout, (y,)),)))
    layers = trained(nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "bn": nn.BatchNorm2d(4)}))
    fused = fx_fuse(fx.GraphModule({name: layers[name] for name in layers}, graph).eval())
    assert not Report.of(fused).folded
    assert isinstance(fused.graph, fx.Graph)
    assert F.dropout in {node.target for node in fused.graph.nodes}


class JoinedBehindDropout(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.dropout(self.a(x)), self.b(self.identity(x))], 1)


def test_what_does_nothing_is_in_the_way_of_no_merge() -> None:
    convs = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1)}
    model = trained(JoinedBehindDropout(**convs, dropout=nn.Dropout(), identity=nn.Identity()))
    fused = fx_fuse(model)
    assert [decision.rule for decision in Report.of(fused).folded] == ["merge_concatenated"]
    assert not Report.of(fx_fuse(fused)).decisions
    assert_same(model, fused, values(2, 3, 6, 6))
