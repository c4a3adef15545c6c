"""Sums, chains and stacks of layers, each with what is left of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse.graph.call import operator_at
from fxfuse.modules.kernels import count_kernels
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE, LINE, VECTOR, SEQUENCE = (2, 4, 9, 7), (2, 4, 9), (3, 4), (3, 5, 4)


class Calls(Model):
    """Layers by name, and a function of them."""

    function: Callable[[Any, Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@dataclass(frozen=True)
class Case:
    """A model, and how many layers with weights, norms and sums are left of it."""

    name: str
    function: Callable[[Any, Tensor], Any]
    layers: dict[str, Callable[[], nn.Module]]
    left: tuple[int, int, int] = (1, 0, 0)
    shape: tuple[int, ...] = IMAGE
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def resizes(self) -> bool:
        """Whether the layer that is left has other channels, taps or padding than any had before."""
        names = [case.name for case in (*CHAINS, *STACKS)]
        return self.name in names or "wider" in self.name or "chain" in self.name or self.name in OTHERS_RESIZED

    def model(self) -> nn.Module:
        """The model, in float64, with norms far from fresh ones."""
        torch.manual_seed(0)
        model = trained(Calls(**{name: make() for name, make in self.layers.items()}))
        model.function = self.function
        return model


OTHERS_RESIZED = ("1x1 with a bias, 3x3 reflected",)
LAYERS = ("conv", "addmm", "mm", "bmm", "linear")
NORMS = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
OTHERS = tuple("add add_ iadd sub sub_ isub rsub mul mul_ div sum cat stack avg_pool2d".split())


def kernels(call: Callable[[Tensor], Any], x: Tensor) -> tuple[int, int, int]:
    """How many layers with weights, norms, and other operations on values a call runs."""
    return _counted(list(count_kernels(call, x).elements()))


def calls(graph_module: fx.GraphModule) -> tuple[int, int, int]:
    """How many of them a graph calls."""
    modules = dict(graph_module.named_modules())
    rows = [operator_at(node, modules.get(str(node.target))) for node in graph_module.graph.nodes]
    return _counted([row.name for row in rows if row is not None])


def _counted(names: list[str]) -> tuple[int, int, int]:
    layers = sum(name.startswith(LAYERS) for name in names)
    norms, others = (sum(name in group for name in names) for group in (NORMS, OTHERS))
    return layers, norms, others


def conv(*arguments: Any, **options: Any) -> Callable[[], nn.Module]:
    """A convolution of two axes."""
    return lambda: nn.Conv2d(*arguments, **options)


def same(taps: int, **options: Any) -> Callable[[], nn.Module]:
    """A convolution that keeps sizes and channels."""
    return conv(4, 4, taps, padding=taps // 2, **options)


def norm() -> nn.Module:
    """A batch norm of the four channels."""
    return nn.BatchNorm2d(4)


def pool(taps: int = 3, **options: Any) -> Callable[[], nn.Module]:
    """An average pool that keeps sizes."""
    return lambda: nn.AvgPool2d(taps, **{"stride": 1, "padding": taps // 2, **options})


TWO = {"a": same(3), "b": same(1)}
SUMS = [
    Case("plus", lambda m, x: m.a(x) + m.b(x), TWO),
    Case("minus", lambda m, x: m.a(x) - m.b(x), TWO),
    Case("minus from the smaller one", lambda m, x: m.b(x) - m.a(x), TWO),
    Case("torch.add", lambda m, x: torch.add(m.a(x), m.b(x), alpha=-3), TWO),
    Case("rsub", lambda m, x: torch.rsub(m.a(x), m.b(x), alpha=2), TWO),
    Case("list", lambda m, x: sum([m.a(x), m.b(x), x]), TWO),
    Case("stack", lambda m, x: torch.stack([m.a(x), m.b(x), x]).sum(0), TWO),
    Case("stack along another axis", lambda m, x: torch.sum(torch.stack((m.a(x), m.b(x)), 2), dim=2), TWO),
    Case("scaled", lambda m, x: 2 * (m.a(x) * 3 - m.b(x) / 4) + x, TWO),
    Case("identity", lambda m, x: x + m.a(x), {"a": same(3)}),
    Case("identity with a factor", lambda m, x: 0.5 * x + m.a(x), {"a": same(3)}),
    Case("norms everywhere", lambda m, x: m.n(m.k(m.a(x)) + m.l(x) + m.b(x)),
         {**TWO, "k": norm, "l": norm, "n": norm}),
    Case("one norm of the input", lambda m, x: m.a(x) + m.n(x), {"a": same(3), "n": norm}),
    Case("sums of sums", lambda m, x: (m.a(x) + (x + m.b(x))) + (m.a(x) - m.b(x)), TWO),
    Case("two of one size", lambda m, x: m.a(x) + m.b(x), {"a": same(3), "b": same(3, bias=False)}),
    Case("grouped into dense", lambda m, x: m.a(x) + m.b(x), {"a": same(3), "b": same(3, groups=2)}),
    Case("depth-wise into grouped", lambda m, x: m.a(x) + m.b(x) + x, {"a": same(3, groups=2), "b": same(1, groups=4)}),
    Case("depth-wise", lambda m, x: m.a(x) + m.b(x) + m.n(x),
         {"a": same(5, groups=4), "b": same(3, groups=4), "n": norm}),
    Case("strides", lambda m, x: m.a(x) + m.b(x),
         {"a": conv(4, 6, 3, 2, 1), "b": conv(4, 6, 1, 2)}),
    Case("dilated", lambda m, x: m.a(x) + m.b(x) + x, {"a": same(1), "b": conv(4, 4, 3, padding=2, dilation=2)}),
    Case("even kernels", lambda m, x: m.a(x) + m.b(x),
         {"a": conv(4, 6, 4, padding=2), "b": conv(4, 6, 2, padding=1)}),
    Case("even kernels that reach apart", lambda m, x: m.a(x) + m.b(x),
         {"a": conv(4, 4, 2), "b": conv(4, 4, 4, padding=1)}),
    Case("same", lambda m, x: m.a(x) + m.b(x) + x, {"a": same(3), "b": conv(4, 4, 1, padding="same")}),
    Case("valid", lambda m, x: m.a(x) + m.b(x),
         {"a": conv(4, 4, 3, padding="valid"), "b": conv(4, 4, 3, bias=False)}),
    Case("average pool", lambda m, x: m.a(x) + m.p(x), {"a": same(3), "p": pool()}),
    Case("average pool with strides", lambda m, x: m.a(x) + m.p(x),
         {"a": conv(4, 4, 3, 2, 1), "p": pool(stride=2)}),
    Case("average pool with a divisor", lambda m, x: m.a(x) + m.p(x) + F.avg_pool2d(x, 1),
         {"a": same(3, groups=4), "p": pool(divisor_override=2)}),
    Case("a chain in a branch", lambda m, x: m.a(x) + m.c(m.b(x)),
         {"a": conv(4, 4, 3), "b": conv(4, 8, 1), "c": conv(8, 4, 3)}),
    Case("dropout between", lambda m, x: m.d(m.a(x)) + m.d(m.b(x) + x), {**TWO, "d": nn.Dropout}),
    Case("in place", lambda m, x: m.a(x).add_(m.b(x)).sub_(x), TWO),
    Case("a rest stays", lambda m, x: (m.a(x) + x.sigmoid()) + (m.b(x) + x), TWO, (1, 0, 1)),
    Case("a rest stays, host subtracted", lambda m, x: (x.sigmoid() - m.a(x)) + m.b(x), TWO, (1, 0, 1)),
    Case("one of three does not align", lambda m, x: m.a(x) + m.b(x) + m.c(x),
         {**TWO, "c": conv(4, 4, 3, padding=2, dilation=2)}, (2, 0, 1)),
    Case("wider than each", lambda m, x: m.a(x) + m.b(x),
         {"a": conv(4, 4, (3, 1), padding=(1, 0)), "b": conv(4, 4, (1, 3), padding=(0, 1))},
         options={"allow_growth": True}),
    Case("asymmetric into square", lambda m, x: m.a(x) + m.b(x) + m.c(x),
         {"a": conv(4, 4, (3, 1), padding=(1, 0)), "b": conv(4, 4, (1, 3), padding=(0, 1)), "c": same(3)}),
    Case("transposed", lambda m, x: m.a(x) + m.b(x),
         {name: lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1, 1) for name in "ab"}),
    Case("lines", lambda m, x: m.a(x) + m.b(x) + x,
         {"a": lambda: nn.Conv1d(4, 4, 3, padding=1), "b": lambda: nn.Conv1d(4, 4, 1)}, shape=LINE),
    Case("linear", lambda m, x: m.a(x) + m.b(x) + x,
         {"a": lambda: nn.Linear(4, 4), "b": lambda: nn.Linear(4, 4, bias=False)}, shape=VECTOR),
    Case("low rank", lambda m, x: m.a(x) + 0.5 * m.c(m.b(x)),
         {"a": lambda: nn.Linear(4, 6), "b": lambda: nn.Linear(4, 1, bias=False), "c": lambda: nn.Linear(1, 6)},
         shape=VECTOR),
]  # fmt: skip

CHAINS = [
    Case("1x1, 3x3", lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 1, bias=False), "b": conv(8, 3, 3, padding=1)}),
    Case("1x1 with a bias, 3x3 without a border", lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 1), "b": conv(8, 3, 3)}),
    Case("1x1 with a bias and a border, 3x3", lambda m, x: m.b(m.a(x)),
         {"a": conv(4, 8, 1, padding=1), "b": conv(8, 3, 3)}),
    Case("3x3, 1x1", lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 3, padding=1), "b": conv(8, 3, 1)}),
    Case("3x3 with a stride, 1x1 with another", lambda m, x: m.b(m.a(x)),
         {"a": conv(4, 8, 3, 2, padding=1), "b": conv(8, 3, 1, 2)}),
    Case("1x1 with a stride, 3x3", lambda m, x: m.b(m.a(x)),
         {"a": conv(4, 8, 1, 2, bias=False), "b": conv(8, 3, 3, padding=1)}),
    Case("grouped, grouped", lambda m, x: m.b(m.a(x)),
         {"a": conv(4, 8, 3, groups=2), "b": conv(8, 4, 1, groups=2)}),
    Case("depth-wise 1x1 after a 1x1", lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 1), "b": conv(8, 8, 1, groups=8)}),
    Case("depth-wise after a 1x1 of one channel", lambda m, x: m.b(m.a(x[:, :1])),
         {"a": conv(1, 8, 1), "b": conv(8, 8, 3, groups=8)}),
    Case("norm between", lambda m, x: m.b(m.d(m.n(m.a(x)))),
         {"a": conv(4, 4, 3), "n": norm, "d": nn.Dropout, "b": conv(4, 3, 1)}),
    Case("3x3, 3x3", lambda m, x: m.b(m.a(x)), {"a": conv(4, 16, 2), "b": conv(16, 1, 2)}),
    Case("three", lambda m, x: m.c(m.b(m.a(x))), {"a": same(1), "b": conv(4, 6, 3), "c": conv(6, 5, 1)}),
    Case("linear, linear", lambda m, x: m.b(m.a(x)),
         {"a": lambda: nn.Linear(4, 8), "b": lambda: nn.Linear(8, 3)}, shape=VECTOR),
    Case("transposed, 1x1", lambda m, x: m.b(m.a(x)),
         {"a": lambda: nn.ConvTranspose2d(4, 8, 3, 2), "b": conv(8, 3, 1)}),
]  # fmt: skip

STACKS = [
    Case("two", lambda m, x: torch.cat([m.a(x), m.b(x)], 1), {"a": same(3), "b": conv(4, 2, 3, padding=1)}),
    Case("all of them", lambda m, x: m.n(torch.cat([m.a(x), m.b(x), m.c(x)], -3)),
         {"a": same(3), "b": same(3, bias=False), "c": conv(4, 2, 3, padding=1), "n": lambda: nn.BatchNorm2d(10)}),
    Case("linear", lambda m, x: torch.cat((m.a(x), m.b(x)), dim=-1),
         {"a": lambda: nn.Linear(4, 4), "b": lambda: nn.Linear(4, 2)}, shape=VECTOR),
    Case("of concatenations", lambda m, x: m.n(torch.cat([torch.cat([m.a(x), m.b(x)], 1), torch.cat([m.c(x)], 1)], 1)),
         {"a": same(3), "b": same(3, bias=False), "c": conv(4, 2, 3, padding=1), "n": lambda: nn.BatchNorm2d(10)}),
    Case("sums of each", lambda m, x: torch.cat([m.a(x) + m.b(x), m.c(x) + x], 1), {**TWO, "c": same(3)}),
]  # fmt: skip

# What a module pads in other ways, and a linear layer of more than two axes, are several operations in other forms.
SUMS_OF_MODULES = [
    Case("reflected", lambda m, x: m.a(x) + m.b(x) + x, {"a": same(3, padding_mode="reflect"), "b": same(1)}),
    Case("circular", lambda m, x: m.a(x) + m.b(x),
         {"a": same(3, padding_mode="circular"), "b": same(5, padding_mode="circular")}),
    Case("sequences", lambda m, x: m.c(m.a(x) + m.b(x) + x),
         {name: lambda: nn.Linear(4, 4) for name in "abc"}, shape=SEQUENCE),
]  # fmt: skip

CHAINS_OF_MODULES = [
    Case("1x1 with a bias, 3x3 reflected", lambda m, x: m.b(m.a(x)),
         {"a": conv(4, 8, 1), "b": conv(8, 3, 3, padding=1, padding_mode="reflect")}),
]  # fmt: skip
