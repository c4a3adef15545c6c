"""Calls that give parts of a value, or put values together."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from tests.operators.calls import Function, Joined, Method, Part
from tests.operators.sample import IMAGE, PER_CHANNEL, Along, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
END = (1 << 63) - 1  # how ATen writes "to the end"
ANY, LAST = along(), along(-1)
EVERY: Any = slice(None)


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _slices(x)
    yield from _selected(x)
    yield from _indexed(x)
    yield from _split(x)
    yield from _chunked(x)
    yield from _joined(x)


def _slices(x: Tensor) -> Iterator[Sample]:
    yield carrier(Function(aten.slice.Tensor, -3, 2, 6), x)
    yield carrier(Function(aten.slice.Tensor, 2, 1, 5), x, PER_CHANNEL, along(1, 2))
    yield carrier(Function(aten.slice.Tensor, -1, -3, END), x, along(1, 3), along(1, 3))
    yield carrier(Function(aten.slice.Tensor), x, None, along(1, 2))  # the whole
    yield carrier(Function(aten.slice.Tensor, 1, -100, 100), x)
    yield carrier(Function(aten.slice.Tensor, 1, None, 3, 1), x)
    yield carrier(Function(aten.slice.Tensor, dim=-3, end=-2), x)
    yield carrier(Method("narrow", -3, 2, 4), x)
    yield carrier(Method("narrow", 1, 0, 3), x)
    yield carrier(Method("narrow", dim=-3, start=5, length=3), x)
    for narrow in (torch.narrow, aten.narrow.default):
        yield carrier(Function(narrow, -3, 5, 3), x)
        yield carrier(Function(narrow, 2, 1, 4), x, along(1, 2), along(1, 2))
        yield carrier(Function(narrow, 1, 1, 6), x)
        yield carrier(Function(narrow, -3, 7, 1), x, ANY)


def _selected(x: Tensor) -> Iterator[Sample]:
    yield carrier(Method("select", -3, 3), x, ANY)
    yield carrier(Method("select", 1, -1), x, along(0, 1), along(0, 1, 2))
    yield carrier(Method("select", dim=-3, index=0), x, ANY)
    for select in (torch.select, aten.select.int):
        yield carrier(Function(select, -3, -8), x, ANY)
        yield carrier(Function(select, 3, -2), x, along(1, 2), along(1, 3))
        yield carrier(Function(select, 1, 4), x, ANY)
        yield carrier(Function(select, -3, -1), x, ANY)


def _indexed(x: Tensor) -> Iterator[Sample]:
    indices: list[tuple[Any, Along | None, Along]] = [
        ((EVERY, slice(1, 5)), PER_CHANNEL, PER_CHANNEL),
        ((EVERY, slice(-3, None)), PER_CHANNEL, PER_CHANNEL),
        ((Ellipsis, slice(None, -2), EVERY, EVERY), PER_CHANNEL, PER_CHANNEL),
        ((EVERY, 3), along(0, 1), along(0, 1)),
        ((Ellipsis, -1), PER_CHANNEL, along(1, 3)),
        (1, along(0, 2), along(0, 1)),
        (slice(1, None), PER_CHANNEL, along(0, 1)),
        ((EVERY, Ellipsis, slice(0, 3, 1)), PER_CHANNEL, along(1, 3)),
        ((EVERY, slice(6, 100), Ellipsis, EVERY), PER_CHANNEL, PER_CHANNEL),
        # Of several parts at once the rest has no simple shape.
        ((0, slice(1, 3)), None, along(0, 1)),
        ((slice(None, 1), Ellipsis, 2), None, along(1, 2, 3)),
        ((EVERY, -2, slice(1, -1), 0), None, along(1, 2, 3)),
        (Ellipsis, None, along(1, 3)),
        ((EVERY, -1), ANY, PER_CHANNEL),
    ]
    for index, pull, push in indices:
        yield carrier(Function(operator.getitem, index), x, pull, push)


def _split(x: Tensor) -> Iterator[Sample]:
    parts: list[tuple[Any, int]] = [(Method("split", 3, -3), 1), (Method("split", 2, 1), -4)]
    parts += [(Method("split", 3, dim=1), 2), (Method("split", split_size=[1, 5, 2], dim=-3), -1)]
    kwargs: dict[str, Any] = {"split_size_or_sections": 5, "dim": -3}
    parts += [(Function(torch.split, 3, -3), 0), (Function(torch.split, [2, 5, 1], 1), 1)]
    parts += [(Function(torch.split, 3, dim=1), -1), (Function(torch.split, by_keyword="tensor", **kwargs), 1)]
    for split, sizes in ((aten.split.Tensor, 3), (aten.split.sizes, [3, 4, 1])):
        parts += [(Function(split, sizes, -3), 1), (Function(split, sizes, 1), 0), (Function(split, sizes, -3), -1)]
    for with_sizes in (torch.split_with_sizes, aten.split_with_sizes.default):
        parts += [(Function(with_sizes, [3, 4, 1], -3), 2), (Function(with_sizes, [6, 2], 1), -2)]
        parts += [(Function(with_sizes, [6, 2], dim=-3), 1)]
    parts += [(Method("split_with_sizes", [3, 5], -3), 1), (Method("split_with_sizes", split_sizes=[3, 5], dim=-3), 0)]
    for call, number in parts:
        yield carrier(Part(call, number), x)
    yield carrier(Part(Method("split", 1), 1), x, PER_CHANNEL, along(0, 1))
    yield carrier(Part(Function(torch.split, [1, 3, 2], -2), 1), x, along(1, 2), along(1, 2))


def _chunked(x: Tensor) -> Iterator[Sample]:
    for chunk in (torch.chunk, aten.chunk.default):
        yield carrier(Part(Function(chunk, 3, -3), 2), x)
        yield carrier(Part(Function(chunk, 5, 1), 3), x)  # which are only four
        yield carrier(Part(Function(chunk, 3, dim=-3), -1), x)
    yield carrier(Part(Method("chunk", 2, -3), 0), x)
    yield carrier(Part(Method("chunk", 4, 2), 1), x, along(1, 2), along(1, 2))
    yield carrier(Part(Method("chunk", chunks=3, dim=-3), -2), x)
    for unbind in (torch.unbind, aten.unbind.int):
        yield carrier(Part(Function(unbind, -3), 3), x, ANY)
        yield carrier(Part(Function(unbind), -1), x, along(0, 2), along(0, 1))
        yield carrier(Part(Function(unbind, 1), 5), x, ANY)
        yield carrier(Part(Function(unbind, dim=-3), -3), x, ANY)
    yield carrier(Part(Method("unbind", -3), 0), x, ANY)
    yield carrier(Part(Method("unbind", dim=2), 5), x, along(1, 2), along(1, 2, 3))
    yield carrier(Part(Method("unbind", -3), -1), x, ANY)


CATS = (aten.cat.default, aten.concat.default, aten.concatenate.default)


def _joined(x: Tensor) -> Iterator[Sample]:
    def join(model: Joined, pull: Along, push: Along, *channels: int) -> Sample:
        y, z = (randn(2, count, 6, 4, seed=seed) for seed, count in enumerate(channels or (8, 8), start=1))
        return Sample(model.eval(), model.function, x, "Join", (y, z), pull, push)

    for cat in (torch.cat, torch.concat, torch.concatenate, *CATS):
        yield join(Joined(cat, 2, -3), PER_CHANNEL, PER_CHANNEL, 3, 5)
        yield join(Joined(cat, 1, 1), PER_CHANNEL, PER_CHANNEL)
        yield join(Joined(cat, 3, 2), along(1, 2), along(1, 2))
        yield join(Joined(cat, 2), along(0, 1), along(0, 3))
        yield join(Joined(cat, 3, dim=1), PER_CHANNEL, PER_CHANNEL, 3, 5)
        yield join(Joined(cat, 3, tensors=(), dim=-1), PER_CHANNEL, PER_CHANNEL)
    for stack in (torch.stack, aten.stack.default):
        yield join(Joined(stack, 2, -4), along(1, 2), PER_CHANNEL)
        yield join(Joined(stack, 3), along(0, 2), along(0, 1))
        yield join(Joined(stack, 3, -1), along(1, 4), along(1, 3))
        yield join(Joined(stack, 2, 2), along(1, 2), PER_CHANNEL)
        yield join(Joined(stack, 3, tensors=(), dim=-4), along(2), PER_CHANNEL)
