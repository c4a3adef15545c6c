"""Calls that put values together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.operators.calls import Joined
from tests.operators.sample import IMAGE, PER_CHANNEL, Along, Sample, along
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator


aten = torch.ops.aten
CATS = (aten.cat.default, aten.concat.default, aten.concatenate.default)


def calls() -> Iterator[Sample]:
    x = randn(*IMAGE)

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
