"""What fits any value: layers, norms and constants of its size, and functions of one or two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.fuzz.functions import ARITHMETIC, CASTS, CATS, CURVES, IDLE, PARTS, SUMS, VIEWS, WRITES
from tests.operators.calls import Code, Function
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Piece:
    """Something to call.

    Attributes:
        make: makes the module for a value, and a number from which its options are drawn.
        reads: how many values it reads.
        gives: how many it gives.
    """

    make: Callable[[Tensor, int], nn.Module]
    reads: int = 1
    gives: int = 1


class DoesNotFit(Exception):  # noqa: N818 - an answer, not an error
    """There is no such layer for such a value."""


def pick(number: int, *options: Any) -> Any:
    """One of several options, and what is left of the number to draw more from."""
    return options[number % len(options)]


def spatial(x: Tensor, number: int) -> tuple[int, int]:
    """How many spatial axes a value has, and which axis its channels are; at times one that has no batch."""
    dims = x.ndim - 2
    if x.ndim == 4 and number % 13 == 12:
        return 3, 0
    if dims not in (1, 2, 3):
        raise DoesNotFit
    return (dims + 1, 0) if dims < 3 and number % 7 == 6 else (dims, 1)


def layer(x: Tensor, number: int) -> nn.Module:
    """A convolution, at times a transposed one, or a linear layer where there are no spatial axes."""
    if x.ndim in (1, 2) and number % 7 != 6:
        return linear(x, number)
    dims, axis = spatial(x, number)
    channels, sizes = x.shape[axis], x.shape[axis + 1 :]
    taps = tuple(min(size, pick(number // 3 + n, 1, 3, 3, 2, 1)) for n, size in enumerate(sizes))
    groups = pick(number, 1, 1, 1, channels, 2 if channels % 2 == 0 else 1)
    out = pick(number // 2, channels, channels, 4, 2 * channels) // groups * groups or groups
    bias = number % 3 > 0
    if number % 10 == 9:
        transposed: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
        return transposed(channels, out, taps, pick(number // 10, 1, 2), 0, 0, groups, bias)
    mode = pick(number // 5, "zeros", "zeros", "zeros", "circular", "replicate", "reflect")
    same = tuple(tap // 2 for tap in taps)
    mode = "zeros" if any(pad >= size for pad, size in zip(same, sizes, strict=True)) else mode
    padding = pick(number // 4, same, same, 0, "same", 1 if mode == "zeros" else same)
    stride = 1 if padding == "same" else pick(number // 11, 1, 1, 1, 2)
    cls: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return cls(channels, out, taps, stride, padding, pick(number // 7, 1, 1, 1, 2), groups, bias, mode)


def linear(x: Tensor, number: int) -> nn.Module:
    """A linear layer along the last axis."""
    if x.ndim == 0:
        raise DoesNotFit
    size = x.shape[-1]
    return nn.Linear(size, pick(number, size, size, 4, 8), bias=number % 3 > 0)


def norm(x: Tensor, number: int) -> nn.Module:
    """A batch norm, or an instance norm with running statistics."""
    if x.ndim not in (2, 3, 4, 5):
        raise DoesNotFit
    dims = max(x.ndim - 2, 1)
    options = pick(number // 3, {}, {}, {"eps": 0.1}, {"affine": False}, {"momentum": None})
    if number % 12 == 11:
        options = {**options, "track_running_stats": False}
    if number % 9 == 8 and x.ndim > 2:
        instance: Any = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1]
        return instance(x.shape[1], **{"affine": True, "track_running_stats": True, **options})
    if number % 9 == 7:
        return nn.SyncBatchNorm(x.shape[1], **options)
    batch: Any = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    return batch(x.shape[1], **options)


def tail(x: Tensor, number: int) -> nn.Module:
    """A norm by the statistics of the value itself."""
    if x.ndim < 2:
        raise DoesNotFit
    channels, last = x.shape[1], x.shape[-1]
    groups = 2 if channels % 2 == 0 else 1
    made: nn.Module = pick(
        number,
        nn.LayerNorm(last),
        nn.GroupNorm(groups, channels),
        nn.RMSNorm(last),
        nn.LayerNorm(x.shape[-2:]),
        nn.GroupNorm(1, channels),
    )
    for seed, (name, value) in enumerate(list(made.named_parameters())):
        made.register_parameter(name, parameter(*value.shape, seed=seed))
    return made


def constant(x: Tensor, number: int) -> Any:
    """A constant along one axis of a value, or a number."""
    if number % 5 == 4 or x.ndim == 0:
        return pick(number // 5, 2, -0.5, 3.0)
    axis = pick(number, 1, -1, 1, 0) % x.ndim if x.ndim > 1 else 0
    shape = [size if n == axis else 1 for n, size in enumerate(x.shape)]
    found = (randn(*shape, seed=number).abs() + 0.5) * randn(*shape, seed=number + 1).sign()
    found = found.reshape(shape[axis:]) if number % 3 else found
    return nn.Parameter(found) if number % 2 else found


def code(functions: list[Callable[..., Any]]) -> Callable[[Tensor, int], nn.Module]:
    """Makes a module of one of several functions."""
    return lambda _x, number: Code(functions[number % len(functions)])


def with_constant(functions: list[Callable[[Any, Any], Any]]) -> Callable[[Tensor, int], nn.Module]:
    """Makes a module of one of several functions of a value and a constant."""
    return lambda x, number: Function(functions[number % len(functions)], constant(x, number // 3))


def one_of(modules: list[Callable[[], nn.Module]]) -> Callable[[Tensor, int], nn.Module]:
    """Makes one of several modules."""
    return lambda _x, number: modules[number % len(modules)]()


def scripted(x: Tensor, number: int) -> nn.Module:
    """A layer or an activation that TorchScript has compiled: nobody can look into it."""
    made = pick(number, layer, linear)(x, number) if number % 3 else nn.ReLU()
    with torch.no_grad():
        return torch.jit.trace(made.double().eval(), x.double(), check_trace=False)


class Table(nn.Module):
    """Looks rows up, by numbers made of a value."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.table((x.detach() * 3).nan_to_num(0).abs().long() % self.table.num_embeddings)
        return found


def table(x: Tensor, number: int) -> nn.Module:
    """An embedding; of a value with few axes, since it gives one more."""
    if x.ndim > 3:
        raise DoesNotFit
    return Table(pick(number, 3, 5), pick(number // 2, 4, 8))


class Product(nn.Module):
    """A product with a parameter: one matrix for all, or one for each of the first axis."""

    def __init__(self, weight: nn.Parameter, *, batched: bool) -> None:
        super().__init__()
        self.weight, self.batched = weight, batched

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight) if self.batched else x @ self.weight


def product(x: Tensor, number: int) -> nn.Module:
    """A product of a value with a matrix, or with a stack of matrices."""
    if x.ndim < 2:
        raise DoesNotFit
    batched, stacked = x.ndim == 3 and number % 2 == 0, x.ndim > 2 and number % 3 == 0
    stack = x.shape[:-2] if batched or stacked else ()
    return Product(parameter(*stack, x.shape[-1], pick(number // 6, 4, 8), seed=number), batched=batched)


class Each(nn.Module):
    """Goes through a list that it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: list[Tensor]) -> Tensor:
        return torch.cat([self.layer(value) for value in values])


class Listed(nn.Module):
    """Gives a list of parts of a value to a module that goes through it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.each = Each(layer)

    def forward(self, x: Tensor) -> Any:
        return self.each([x, x.flip(0)])


def listed(x: Tensor, number: int) -> nn.Module:
    """A layer, with a norm at times, that a loop over an argument calls."""
    made = layer(x, number)
    with torch.no_grad():
        given = made.double()(x.double())
    return Listed(nn.Sequential(made, norm(given, number // 2)) if number % 3 else made)


PIECES: dict[str, Piece] = {
    "layer": Piece(layer),
    "linear": Piece(linear),
    "norm": Piece(norm),
    "scale": Piece(with_constant(ARITHMETIC)),
    "tail": Piece(tail),
    "idle": Piece(one_of(IDLE)),
    "curve": Piece(one_of(CURVES)),
    "write": Piece(with_constant(WRITES)),
    "view": Piece(code(VIEWS)),
    "sum": Piece(code(SUMS), reads=2),
    "cat": Piece(code(CATS), reads=2),
    "part": Piece(code(PARTS), gives=2),
    "cast": Piece(code(CASTS)),
    "scripted": Piece(scripted),
    "table": Piece(table),
    "product": Piece(product),
    "listed": Piece(listed),
}
