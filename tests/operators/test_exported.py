"""The rows of the table in graphs of ``torch.export``: every overload is seen, and folds as its module does."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Report, fx_fuse
from fxfuse.operators import OPERATORS
from tests.helpers import assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls(nn.Module):
    """A convolution, and something with a constant behind it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gain = nn.Parameter(torch.tensor([0.5, -1.5, 2.0, 3.0], dtype=torch.float64).reshape(4, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x), self.gain)


LAYERS: list[tuple[nn.Module, nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 7)),
    (nn.Conv1d(3, 4, 3, padding="same"), nn.BatchNorm1d(4), (2, 3, 7)),
    (nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), (2, 4, 7, 7)),
    (nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), (2, 3, 7, 7)),
    (nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), (2, 3, 5, 5, 5)),
    (nn.Conv3d(3, 4, 3, padding="same"), nn.BatchNorm3d(4), (2, 3, 5, 5, 5)),
    (nn.ConvTranspose1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 7)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    (nn.ConvTranspose3d(3, 4, 3), nn.BatchNorm3d(4), (2, 3, 5, 5, 5)),
    (nn.Linear(3, 4), nn.BatchNorm1d(4), (5, 3)),
]
FUNCTIONS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda y, g: y * g,
    lambda y, g: y + g,
    lambda y, g: y - g,
    lambda y, g: torch.rsub(y, g, alpha=2),
    lambda y, g: 5 - y,  # noqa: ARG005 - all are called alike
    lambda y, g: y / g,
    lambda y, g: -y,  # noqa: ARG005 - likewise
    lambda y, g: F.dropout(y * g, training=False),
]


def exported(model: nn.Module, inputs: Tensor) -> fx.GraphModule:
    graph_module = torch.export.export(model, (inputs,)).module()
    assert isinstance(graph_module, fx.GraphModule)
    return graph_module


def models() -> list[tuple[nn.Module, Tensor]]:
    layers = [(nn.Sequential(layer, nn.Dropout(), norm), values(*shape)) for layer, norm, shape in LAYERS]
    return [(trained(m), x) for m, x in [*layers, *((Calls(f), values(2, 3, 6, 6)) for f in FUNCTIONS)]]


@functools.cache
def cases() -> list[tuple[nn.Module, Tensor, fx.GraphModule]]:
    return [(model, inputs, exported(model, inputs)) for model, inputs in models()]


@pytest.mark.parametrize("number", range(len(LAYERS) + len(FUNCTIONS)))
def test_an_exported_graph_folds_as_its_model(number: int) -> None:
    model, inputs, graph_module = cases()[number]
    fused: Any = fx_fuse(graph_module)
    assert_same(model, fused, inputs)
    assert len(Report.of(fused).folded) == len(Report.of(fx_fuse(model)).folded) > 0


def test_every_overload_in_the_table_was_seen() -> None:
    seen = {node.target for _, _, graph_module in cases() for node in graph_module.graph.nodes}
    wanted = {target for target in OPERATORS if isinstance(target, torch._ops.OpOverload)}
    assert wanted - seen == set()
