"""Calls that give several parts of a value, and indices."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from tests.operators.calls import Function, Method, Part
from tests.operators.sample import IMAGE, PER_CHANNEL, Along, Sample, along, carrier
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

aten = torch.ops.aten
ANY = along()
EVERY: Any = slice(None)


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)
    yield from _indexed(x)
    yield from _split(x)
    yield from _chunked(x)


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
        # What nobody reads may become anything; where the affine varies, the rest is known.
        ((0, slice(1, 3)), along(0), along(0, 1)),
        ((slice(None, 1), Ellipsis, 2), along(1, 2), along(1, 2, 3)),
        ((EVERY, -2, slice(1, -1), 0), along(0, 1), along(1, 2, 3)),
        (Ellipsis, along(1, 3), along(1, 3)),
        ((EVERY, EVERY, slice(None, None, 2)), PER_CHANNEL, PER_CHANNEL),
        ((Ellipsis, slice(1, None, 2)), along(1, 2), along(1, 2)),
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
