"""Graphs that were made before, and that call modules of the user's as a whole, as tracers with own leaves do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module

from fxfuse import Reason, Report, fuse_graph, fx_fuse
from tests.hazards.blocks import Functional
from tests.support.helpers import Model, assert_same, folds, reasons, trained, unchanged, values


class Block(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Branches(Block):
    """Cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if x.sum() > 0 else x


class Optional(Block):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        y = self.bn(self.conv(x))
        return y if extra is None else y + extra


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


class AndInner(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.block.conv(x).sigmoid() + self.block.conv(x.tanh()).sigmoid()


class AndNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.block.bn(x)) + self.block(x)


class WithExtra(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, x)


def block(cls: type[Model] = Block) -> Model:
    return cls(conv=nn.Conv2d(3, 3, 1), bn=nn.BatchNorm2d(3))


class Leaves(fx.Tracer):
    """A tracer that traces into no block."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Block, Functional)) or super().is_leaf_module(m, module_qualified_name)


def graph_of(model: nn.Module) -> fx.GraphModule:
    trained(model)
    return fx.GraphModule(model, Leaves().trace(model))


def assert_folds(graph: fx.GraphModule, *paths: str, left: dict[str, Reason] | None = None) -> fx.GraphModule:
    """The same, in a new graph and in place."""
    inputs = values(2, 3, 6, 6)
    with unchanged(graph):
        fused = fx_fuse(graph)
    assert isinstance(fused, fx.GraphModule)
    assert_same(graph, fused, inputs)
    assert (folds(fused), reasons(fused)) == (sorted(paths), set((left or {}).items()))
    with torch.no_grad():
        expected = graph(inputs)
        report = fuse_graph(graph)
        torch.testing.assert_close(graph(inputs), expected, rtol=0, atol=1e-12)
    assert sorted(d.path for d in report.folded) == sorted(paths)
    return fused


def test_a_fold_inside_of_a_module_that_the_graph_calls_as_a_whole() -> None:
    fused = assert_folds(graph_of(nn.Sequential(block(), nn.ReLU(), block())), "0.bn", "2.bn")
    assert [str(node.target) for node in fused.graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
    assert not any(decision.assumed for decision in Report.of(fused).folded)  # the graph says how it is called


def test_a_module_of_which_the_forward_is_functions() -> None:
    scaled = Functional(weight=nn.Parameter(values(3, 3, 1, 1)), gain=nn.Parameter(values(3, 1, 1)))
    assert_folds(graph_of(nn.Sequential(scaled, nn.ReLU())), "0")


def test_a_module_that_is_called_twice() -> None:
    assert_folds(graph_of(Twice(block=block())), "block.bn")


def test_a_layer_that_the_graph_also_calls_by_itself_is_as_it_was_there() -> None:
    fused = assert_folds(graph_of(AndInner(block=block())), "block.bn")
    targets = [str(node.target) for node in fused.graph.nodes if node.op == "call_module"]
    assert targets[0] == "block"
    assert len(set(targets)) == 2


def test_a_norm_that_the_graph_also_calls_by_itself_is_as_it_was_there() -> None:
    model, inputs = graph_of(AndNorm(block=block(), other=nn.Conv2d(3, 3, 1))), values(2, 3, 6, 6)
    fused = fx_fuse(model)
    assert_same(model, fused, inputs)
    assert Report.of(fused).folded[0].into == ("block.conv",)


class Everything(fx.Tracer):
    """A tracer that traces into nothing."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        return True


def test_graphs_within_a_graph() -> None:
    scaled = Functional(weight=nn.Parameter(values(3, 3, 1, 1)), gain=nn.Parameter(values(3, 1, 1)))
    model = trained(nn.Sequential(fx.symbolic_trace(trained(block())), fx.symbolic_trace(trained(scaled))))
    assert_folds(fx.GraphModule(model, Everything().trace(model)), "0.bn", "1")


def test_a_graph_that_was_split() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Sigmoid()))
    graph, seen = fx.symbolic_trace(model), list[fx.Node]()

    def part(node: fx.Node) -> int:
        seen.append(node)
        return len(seen) // 4

    split = split_module(graph, model, part)
    assert_folds(copy.deepcopy(split), "submod_0.1")
    assert_same(model, copy.deepcopy(fx_fuse(split)), values(2, 3, 6, 6))


def test_what_cannot_be_traced_is_told() -> None:
    model = graph_of(nn.Sequential(block(Branches), nn.ReLU()))
    assert_folds(model, left={"0.bn": Reason.OPAQUE})


def test_a_module_that_is_called_with_optional_arguments() -> None:
    assert_folds(graph_of(WithExtra(block=block(Optional))), left={"block.bn": Reason.OPAQUE})


def test_a_hooked_block_and_its_layers_called_from_outside() -> None:
    """The same in a model, where a hook makes one node of the block."""
    for cls, layers in ((AndInner, {}), (AndNorm, {"other": nn.Conv2d(3, 3, 1)})):
        model: Any = trained(cls(block=block(), **layers))
        model.block.register_forward_hook(lambda *_: None)
        assert_same(model, fx_fuse(model), values(2, 3, 6, 6))
        fused = fx_fuse(model, hooks="observe")
        assert "block.bn" in folds(fused)
        assert_same(model, fused, values(2, 3, 6, 6))


@pytest.mark.parametrize(("name", "last", "norms"), [("mobilenet_v2", "features.18", 52), ("resnet18", "layer4", 20)])
def test_feature_extractors_of_torchvision(name: str, last: str, norms: int) -> None:
    """Their blocks of convolution, norm and activation are leaves."""
    zoo = pytest.importorskip("torchvision.models")
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = trained(extraction.create_feature_extractor(getattr(zoo, name)(weights=None), {last: "x"}))
    fused, inputs = fx_fuse(model), values(1, 3, 64, 64)
    assert len(folds(fused)) == norms
    with torch.no_grad():
        torch.testing.assert_close(fused(inputs)["x"], model(inputs)["x"], rtol=1e-9, atol=1e-9)
