"""Hazard 29: the argument stays what it was, and ``inplace=True`` changes just the graph that is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import FuseError, Reason, Report, explain, fx_fuse
from fxfuse.rules import DEFAULT_RULES
from tests.support.helpers import (
    Model,
    Structure,
    assert_equal,
    assert_same,
    folds,
    reasons,
    run,
    trained,
    unchanged,
    values,
)

if TYPE_CHECKING:
    from fxfuse.rules import Rule


class Net(Model):
    """Two pairs, one of which calls functions on tensors of its own, and a layer that no norm follows."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)) * self.g
        return self.head(y.mean((2, 3)))


def net() -> Net:
    convolutions = {"conv1": nn.Conv2d(3, 4, 3), "conv2": nn.Conv2d(4, 4, 3)}
    norms = {"bn1": nn.BatchNorm2d(4), "bn2": nn.BatchNorm2d(4)}
    return trained(Net(**convolutions, **norms, g=values(4, 1, 1), head=nn.Linear(4, 2)))


class Failing:
    """The rules, until a node of that name is reached."""

    __name__ = "failing"

    def __init__(self, at: str, error: type[BaseException]) -> None:
        self.at = at
        self.error = error

    def __call__(self, graph: Any, node: fx.Node) -> Any:
        if node.name == self.at:
            raise self.error("in the middle")
        return DEFAULT_RULES[0](graph, node)


INPUTS = (2, 3, 8, 8)


# -- the argument


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.cuda.OutOfMemoryError])
def test_a_pass_that_fails_half_way_changes_nothing(structure: Structure, error: type[BaseException]) -> None:
    model = net()
    rules: list[Rule] = [Failing("bn1", error)]  # bn2 was folded before
    with unchanged(model), pytest.raises((error, FuseError), match="in the middle"):
        fx_fuse(model, structure=structure, rules=rules)


def test_what_is_not_folded_is_shared(structure: Structure) -> None:
    model = net()
    fused = fx_fuse(model, structure=structure)
    assert folds(fused) == ["bn1", "bn2", "mul"]
    assert fused.get_parameter("head.weight") is model.head.weight
    assert fused.get_parameter("conv1.weight") is not model.conv1.weight


def test_training_the_result_does_not_change_the_folded_layers_of_the_argument(structure: Structure) -> None:
    model = net()
    fused = fx_fuse(model, structure=structure)
    with unchanged(model), torch.no_grad():
        for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
            fused.get_parameter(name).add_(1)


def test_other_attributes_of_the_result_are_its_own(structure: Structure) -> None:
    model = net()
    fused = fx_fuse(model, structure=structure)
    with unchanged(model):
        fused.training = True
        fused.register_forward_hook(lambda _module, _args, output: output)
        fused.note = "new"  # type: ignore[assignment] # any attribute
        fused.get_submodule("conv1").note = "new"  # type: ignore[assignment] # likewise
        fused.add_module("more", nn.ReLU())


def test_explaining_changes_nothing_and_says_the_same(structure: Structure) -> None:
    model = net()
    with unchanged(model):
        report = explain(model, structure=structure)
    sizes = {"sizes": None}  # which explain alone counts
    assert {**report.to_dict(), **sizes} == Report.of(fx_fuse(model, structure=structure)).to_dict()


def test_random_numbers_are_drawn_as_before(structure: Structure) -> None:
    model, inputs = net(), values(*INPUTS)
    state = torch.get_rng_state()
    fx_fuse(model, inputs, structure=structure)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_example_inputs_are_not_changed(structure: Structure) -> None:
    class ChangesItsInput(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    model, inputs = ChangesItsInput(**dict(net().named_children()), g=values(4, 1, 1)).eval(), values(*INPUTS)
    before = inputs.clone()
    fused = fx_fuse(model, inputs, structure=structure)
    assert folds(fused) == ["bn1", "bn2", "mul"]
    assert torch.equal(inputs, before)
    assert_same(model, fused, inputs)


def test_statistics_of_a_norm_in_training_mode_are_not_moved_by_the_examples(structure: Structure) -> None:
    model, inputs = net(), values(*INPUTS)
    model.bn2.train()
    with unchanged(model):
        fused = fx_fuse(model, inputs, structure=structure)
    assert folds(fused) == ["bn1"]
    assert reasons(fused) == {("bn2", Reason.TRAINING)}


# -- in place


def traced() -> fx.GraphModule:
    graph_module = fx.symbolic_trace(net())
    graph_module.note = "mine"  # type: ignore[assignment] # any attribute
    graph_module.meta["mine"] = 1
    return graph_module


def test_in_place_the_graph_itself_is_fused() -> None:
    graph_module, inputs = traced(), values(*INPUTS)
    expected = run(graph_module, (inputs,))
    assert fx_fuse(graph_module, inplace=True) is graph_module
    assert_equal(expected, run(graph_module, (inputs,)))
    assert folds(graph_module) == ["bn1", "bn2", "mul"]
    assert [name for name, _ in graph_module.named_children()] == ["conv1", "conv2", "head"]
    assert "bn" not in graph_module.code


def test_in_place_everything_else_stays() -> None:
    graph_module = traced()
    head, cls = graph_module.head, type(graph_module)
    graph_module.register_forward_hook(lambda _module, _args, output: output * 2)
    expected = run(graph_module, (values(*INPUTS).fill_(0.5),))
    fx_fuse(graph_module, inplace=True)
    assert type(graph_module) is cls
    assert graph_module.head is head
    assert graph_module.note == "mine"
    assert graph_module.meta["mine"] == 1
    assert_equal(expected, run(graph_module, (values(*INPUTS).fill_(0.5),)))


def test_in_place_the_layers_that_others_hold_are_not_changed() -> None:
    graph_module = traced()
    held = graph_module.conv1
    with unchanged(held):  # type: ignore[arg-type] # a module
        fx_fuse(graph_module, inplace=True)
    assert graph_module.conv1 is not held


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_in_place_a_pass_that_fails_half_way_changes_nothing(error: type[BaseException]) -> None:
    graph_module = traced()
    with unchanged(graph_module), pytest.raises((error, FuseError), match="in the middle"):
        fx_fuse(graph_module, inplace=True, rules=[Failing("bn1", error)])


def test_in_place_a_failure_at_the_very_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph_module, recompile = traced(), fx.GraphModule.recompile

    def failing(self: fx.GraphModule) -> Any:
        if self is graph_module and "bn1" not in str(self.graph):
            raise MemoryError("at the end")
        return recompile(self)

    monkeypatch.setattr(fx.GraphModule, "recompile", failing)
    before = (str(graph_module.graph), graph_module.code, dict(graph_module.named_modules()))
    with pytest.raises(FuseError, match=r"not enough memory.*at the end"):
        fx_fuse(graph_module, inplace=True)
    monkeypatch.undo()
    assert (str(graph_module.graph), graph_module.code, dict(graph_module.named_modules())) == before
    assert folds(fx_fuse(graph_module, inplace=True)) == ["bn1", "bn2", "mul"]


def test_in_place_nothing_to_fold_changes_no_code() -> None:
    graph_module = fx.symbolic_trace(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))))
    code, inputs = graph_module.code, values(2, 3, 6, 6)
    expected = run(graph_module, (inputs,))
    fx_fuse(graph_module, inplace=True)
    assert (graph_module.code, folds(graph_module)) == (code, [])
    assert reasons(graph_module) == {("2", Reason.NOT_LINEAR)}
    assert_equal(expected, run(graph_module, (inputs,)))


def test_a_container_without_children_is_copied_too(structure: Structure) -> None:
    empty = nn.Sequential()
    empty.register_forward_hook(lambda *_: None)  # so that it is a node of its own
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), empty))
    fused = fx_fuse(model, structure=structure)
    assert fused.get_submodule("2") is not empty
    fused.train()
    assert not empty.training
