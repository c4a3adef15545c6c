"""Random models of layers that are added, chained and put behind one another, of values of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fuzz.functions import PLAIN_SUMS
from tests.support.helpers import trained

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNELS = 4
INPUT = (2, CHANNELS, 7, 6)


@dataclass(frozen=True)
class Op:
    """One operation: which values it reads, counted from the last, and some numbers that it draws its options from."""

    kind: str
    first: int
    second: int
    number: int


def _layer(op: Op, channels: int = CHANNELS) -> nn.Module:
    sizes = [(1, 1), (1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (3, 1)][op.number % 7]
    dilation = 2 if op.number % 5 == 4 else 1
    padding = (dilation * (sizes[0] // 2), dilation * (sizes[1] // 2))
    groups = [1, 1, 2, channels][op.number % 4]
    mode: Literal["circular", "zeros"] = "circular" if op.number % 11 == 10 else "zeros"
    bias = op.number % 3 > 0
    return nn.Conv2d(channels, channels, sizes, 1, padding, dilation, groups, bias, mode)


class Wide(nn.Module):
    """Two layers with more channels between."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        taps, padded = (3, op.number % 2) if op.number % 3 else (1, 0)
        self.first = nn.Conv2d(CHANNELS, 8, 1, padding=1 - padded if taps == 3 else 0, bias=op.number % 5 > 0)
        self.second = nn.Conv2d(8, CHANNELS, taps, padding=padded, groups=1 + op.number % 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


class Apart(nn.Module):
    """Two layers behind one another, and one that reads both."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.one, self.two = _layer(op), _layer(Op("", 0, 0, op.number // 3))
        self.back = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.back(torch.cat([self.one(x), self.two(x)], 1))
        return y


def _norm(op: Op) -> nn.Module:
    del op
    return nn.BatchNorm2d(CHANNELS)


def _pool(op: Op) -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=op.number % 4 > 0)


def _noop(op: Op) -> nn.Module:
    return nn.Dropout() if op.number % 2 else nn.Identity()


def _normed(op: Op) -> nn.Module:
    return nn.Sequential(_layer(op), nn.BatchNorm2d(CHANNELS))


LAYERS: dict[str, Callable[[Op], nn.Module]] = {
    "layer": _layer,
    "again": _layer,
    "normed": _normed,
    "norm": _norm,
    "pool": _pool,
    "noop": _noop,
    "wide": Wide,
    "apart": Apart,
    "relu": lambda op: nn.ReLU(inplace=op.number % 2 == 0),
}
SUMS: list[Callable[[Tensor, Tensor], Any]] = [*PLAIN_SUMS, lambda x, y: y.add(x) * -0.5 + 1]


def _added(x: Tensor, y: Tensor, number: int) -> Tensor:
    z: Tensor = SUMS[number % len(SUMS)](x, y)
    return z


def _in_place(x: Tensor, y: Tensor, number: int) -> Tensor:
    if number % 3 == 0:
        x += y
    elif number % 3 == 1:
        x -= y
    else:
        x.add_(y, alpha=3)
    return x


def _asked(x: Tensor, y: Tensor, number: int) -> Tensor:
    return x * (y.shape[1] if number % 2 else y.ndim)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "added": _added,
    "sum": _added,
    "plus": lambda x, y, _: x + y,
    "in place": _in_place,
    "asked": _asked,
    "sigmoid": lambda x, _, __: x.sigmoid(),
    "scaled": lambda x, _, n: x * (n - 3.5),
    "view": lambda x, _, __: x.view(x.shape),
    "pad": lambda x, _, __: F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1],
    "write": lambda x, _, __: x.relu_(),
}
KINDS = [*LAYERS, "layer", "normed", "plus", "plus", *FUNCTIONS]
OPS = st.lists(
    st.builds(Op, st.sampled_from(KINDS), st.integers(0, 4), st.integers(0, 4), st.integers(0, 60)),
    min_size=3,
    max_size=12,
)


def build(ops: list[Op]) -> nn.Module:
    """A model of these operations, in float64, with norms far from fresh ones."""
    torch.manual_seed(0)
    return trained(Net(ops))


class Net(nn.Module):
    """Each operation reads some of the last values."""

    def __init__(self, ops: list[Op]) -> None:
        super().__init__()
        self.ops = ops
        self.layers = nn.ModuleDict()
        latest: str | None = None
        self.names: list[str] = []
        for number, op in enumerate(ops):
            name = f"{op.kind}_{number}"
            if op.kind == "again" and latest is not None:
                name = latest  # a layer that is called twice
            elif op.kind in LAYERS:
                self.layers[name] = LAYERS[op.kind](op)
                latest = name if op.kind in ("layer", "again") else latest
            self.names.append(name)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values: list[Any] = [x.sigmoid()]
        for op, name in zip(self.ops, self.names, strict=True):
            one, two = (values[-1 - index % len(values)] for index in (op.first, op.second))
            values.append(self.layers[name](one) if op.kind in LAYERS else FUNCTIONS[op.kind](one, two, op.number))
        return (values[-1],) if self.ops[-1].number % 3 else tuple(values[-2:])
