"""A result that was saved and loaded is the same function: torch's own tracer would misread some graphs."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Report, fuse_graph, fx_fuse
from fxfuse.write_back.saved_graph import load_graph, save_graph
from tests.support.helpers import trained

if TYPE_CHECKING:
    from collections.abc import Callable


class Base(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.register_buffer("table", torch.randn(1, 4, 32, 32))


class InPlaceOnAView(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x)).exp()
        part = y[:, :2]
        part *= 3
        return y


class IntoTheInput(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        part = x[:, :1]
        part += 2
        return y + x.sum()


class TableOfTheInputsSize(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y + self.table[:, :, : x.shape[2], : x.size(3)]


class TableOfTheLargerSize(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        size = max(x.shape[2], x.shape[3])
        return y.mean((2, 3)) + self.table[0, :, :size, :size].mean((1, 2))


class ManyKindsOfArguments(Base):
    def forward(self, x: Tensor, scale: float = 2.0) -> dict[str, Any]:
        y = self.bn(self.conv(x))
        first, second = torch.split(y, [1, 3], dim=1)
        return {"list": [first * scale, second[..., ::2]], "cat": torch.cat([second, first], dim=1), "none": None}


class InChannelsLast(Base):
    """A memory format among the arguments, and one in what is computed for the fold."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x)).contiguous(memory_format=torch.channels_last)
        return y.to(memory_format=torch.contiguous_format).mean((2, 3)) @ self.matrix + self.matrix[0]


MODELS = [
    InPlaceOnAView,
    IntoTheInput,
    TableOfTheInputsSize,
    TableOfTheLargerSize,
    ManyKindsOfArguments,
    InChannelsLast,
]


def through_pickle(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def through_save(model: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", [through_pickle, through_save])
@pytest.mark.parametrize("cls", MODELS)
def test_a_loaded_result_is_the_same_function(cls: type[nn.Module], way: Callable[[Any], Any]) -> None:
    model = trained(cls())
    fused = fx_fuse(model)
    assert "bn" in [d.path for d in Report.of(fused).folded]
    loaded = way(fused)
    for size in ((6, 6), (5, 9)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        mine, theirs, expected = x.clone(), x.clone(), x.clone()
        torch.testing.assert_close(loaded(mine), fused(theirs), rtol=0, atol=0)
        torch.testing.assert_close(fused(theirs.copy_(x)), model(expected))
        assert torch.equal(mine, fused_input(fused, x))
    assert Report.of(loaded).to_dict() == Report.of(fused).to_dict()


def fused_input(fused: nn.Module, x: Tensor) -> Tensor:
    """What a call leaves in its input."""
    mine = x.clone()
    fused(mine)
    return mine


class MadeElsewhere(Base):
    """Functions that torch makes in another function."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.bn(self.conv(x)), 2)
        return F.adaptive_max_pool2d(y, 1) + F.lp_pool2d(y.abs(), 2, 2).sum()


def test_functions_of_torch_that_are_made_in_others_are_stored_by_name() -> None:
    fused = fx_fuse(trained(MadeElsewhere()))
    again: Any = pickle.loads(pickle.dumps(fused))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(again(x), fused(x))
    assert F.max_pool2d in {node.target for node in again.graph.nodes}


def test_aten_operators_are_stored_by_name() -> None:
    model = trained(Base())
    layers = nn.Sequential(model.conv, model.bn, nn.ReLU()).eval()
    graph_module = torch.export.export(layers, (torch.randn(2, 3, 6, 6, dtype=torch.float64),)).module()
    assert isinstance(graph_module, fx.GraphModule)
    fuse_graph(graph_module)
    before = [(n.op, n.name, n.target, str(n.args), str(n.kwargs)) for n in graph_module.graph.nodes]
    graph = load_graph(pickle.loads(pickle.dumps(save_graph(graph_module.graph))))
    assert [(n.op, n.name, n.target, str(n.args), str(n.kwargs)) for n in graph.nodes] == before
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(fx.GraphModule(graph_module, graph)(x), graph_module(x), rtol=0, atol=0)


def test_an_annotation_that_cannot_be_stored_is_left_out() -> None:
    class Local:
        pass

    graph = fx.symbolic_trace(nn.Sequential(nn.ReLU())).graph
    next(iter(graph.nodes)).type = Local
    loaded = load_graph(pickle.loads(pickle.dumps(save_graph(graph))))
    assert next(iter(loaded.nodes)).type is None
