"""The rows of the table in graphs of ``torch.export``: every overload is seen, and folds as its module does."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Report, fx_fuse
from tests.operators import exported_calls
from tests.operators.gpu_norms import CUDNN, MIOPEN
from tests.operators.samples import WITH_ROLE
from tests.operators.samples.norms import NEVER_FOLDED
from tests.support.helpers import assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


aten = torch.ops.aten


class Core(nn.Module):
    """A call that only decompositions write, and that may stand in a forward as well; and a norm."""

    def __init__(self, function: Callable[[Core, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm2d(4)
        self.after = nn.BatchNorm1d(4)
        self.instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.function = function

    @property
    def constants(self) -> tuple[Any, ...]:
        return self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


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
    lambda y, g: y.mul_(g),
    lambda y, g: y.add_(g),
    lambda y, g: y.sub_(g),
    lambda y, g: y.div_(g),
    lambda y, g: -y,  # noqa: ARG005 - likewise
    lambda y, g: F.dropout(y * g, training=False),
    lambda y, g: torch.clone(y * g) + g,
    lambda y, g: F.dropout2d(torch.multiply(y, g), training=False),
    lambda y, g: F.alpha_dropout(torch.subtract(y, g)),
    lambda y, g: F.feature_alpha_dropout(torch.true_divide(torch.negative(y), g)),
    lambda y, g: torch.divide(torch.div(y, g, rounding_mode=None), g),
    lambda y, g: torch.divide(y, g, rounding_mode=None),
    lambda y, g: torch.addcdiv(g, torch.addcmul(g, y, g), g),
    lambda y, g: y.addcmul_(g, g).addcdiv_(g, g),
    lambda y, g: torch.lerp(torch.lerp(y, g, g), g, 0.3),
    lambda y, g: y.lerp_(g, g).lerp_(g, 0.3),
]
CORE: list[Callable[[Core, Tensor], Tensor]] = [
    lambda m, x: m.norm(torch.convolution(x, m.conv.weight, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)),
    lambda m, x: m.after(torch.mm(x[:, :, 0, 0], m.linear.weight.t())),
    lambda m, x: m.after(torch.matmul(x[:, :, 0, 0], m.linear.weight.t())),
    lambda m, x: m.after(torch.addmm(m.linear.bias, x[:, :, 0, 0], m.linear.weight.t())),
    lambda m, x: m.after(torch.einsum("bi,oi->bo", x[:, :, 0, 0], m.linear.weight)),
    lambda m, x: m.after(torch.tensordot(x[:, :, 0, 0], m.linear.weight, ([-1], [1]))),
    lambda m, x: m.after(aten.tensordot.default(x[:, :, 0, 0], m.linear.weight, [-1], [1])),
    lambda m, x: m.instance(m.conv(x)),
    lambda m, x: aten.native_batch_norm.default(m.conv(x), *m.constants, False, 0.1, 0.2)[0],
    lambda m, x: aten._native_batch_norm_legit_no_training.default(m.conv(x), *m.constants, 0.1, 0.2)[0],
    lambda m, x: aten._batch_norm_no_update.default(m.conv(x), *m.constants, 0.1, 0.2)[0],
    lambda m, x: CUDNN(m.conv(x), *m.constants, False, 0.1, 0.2)[0],
    lambda m, x: MIOPEN(m.conv(x), *m.constants, False, 0.1, 0.2)[0],
]


def exported(model: nn.Module, inputs: Tensor) -> fx.GraphModule:
    graph_module = torch.export.export(model, (inputs,)).module()
    assert isinstance(graph_module, fx.GraphModule)
    return graph_module


def models() -> list[tuple[nn.Module, Tensor]]:
    layers = [(nn.Sequential(layer, nn.Dropout(), norm), values(*shape)) for layer, norm, shape in LAYERS]
    layers.append((nn.Sequential(nn.Embedding(7, 4), nn.Dropout(), nn.BatchNorm1d(4)), torch.arange(5)))
    image = values(2, 3, 6, 6)
    return [(trained(m), x) for m, x in [*layers, *((Calls(f), image) for f in FUNCTIONS)]] + [
        (trained(Core(f)), image) for f in CORE
    ]


@functools.cache
def cases() -> list[tuple[nn.Module, Tensor, fx.GraphModule]]:
    return [(model, inputs, exported(model, inputs)) for model, inputs in models()]


@pytest.mark.parametrize("number", range(len(LAYERS) + 1 + len(FUNCTIONS) + len(CORE)))
def test_an_exported_graph_folds_as_its_model(number: int) -> None:
    model, inputs, graph_module = cases()[number]
    fused: Any = fx_fuse(graph_module)
    assert_same(model, fused, inputs)
    # An exported graph knows its shapes, so the model is given them as well.
    assert len(Report.of(fused).folded) == len(Report.of(fx_fuse(model, inputs)).folded) > 0


@functools.cache
def calls() -> list[tuple[nn.Module, Tensor, int, fx.GraphModule]]:
    return [(model, x, count, exported(model, x)) for model, x, count in exported_calls.models()]


@pytest.mark.parametrize("number", range(len(exported_calls.models())))
def test_every_call_folds_in_an_exported_graph(number: int) -> None:
    model, x, count, graph_module = calls()[number]
    fused = fx_fuse(graph_module)
    assert_same(model, fused, x)
    assert len(Report.of(fused).folded) == count


class AsksForADtype(nn.Module):
    """Reads the result of a norm, and elsewhere its dtype alone."""

    def __init__(self, cast: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(4, 3)
        self.cast = cast

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.relu())
        z: Tensor = self.first(y) + self.second(self.cast(x.sin(), y))
        return z


@pytest.mark.parametrize("cast", [Tensor.type_as, aten.type_as.default, aten.to.other])
def test_an_affine_does_not_pass_what_only_asks_for_a_dtype(cast: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, x = trained(AsksForADtype(cast)), values(5, 4)
    assert_same(model, fx_fuse(exported(model, x)), x)


def test_every_overload_in_the_table_was_seen() -> None:
    graph_modules = [*(case[2] for case in cases()), *(call[3] for call in calls())]
    seen = {node.target for graph_module in graph_modules for node in graph_module.graph.nodes}
    wanted = {target for target in WITH_ROLE if isinstance(target, torch._ops.OpOverload)}
    assert wanted - seen - NEVER_FOLDED == set()
