"""Means of images, which a pool takes in half of the time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .test_plan import kernels


def test_means_of_images() -> None:
    pool, pools = nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 2))
    for forward in (
        lambda m, x: m.b(m.pool(m.a(x)) * x),
        lambda m, x: m.b(m.pools(m.a(x))),
        lambda m, x: m.b(F.adaptive_avg_pool2d(m.a(x), (1, 1))),
        lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True)),
        lambda m, x: m.a(x).mean((-2, -1)).view(-1),
        lambda m, x: m.a(x).mean([2, 3]) + m.b(x).mean(dim=(1, 2)).mean(),
        lambda m, x: m.a(x).unsqueeze(2).mean((2, 3)),
        lambda m, x: torch.mean(m.b(x), (2, 3), dtype=torch.float64).to(x.dtype),
    ):
        kernels(forward, pool=pool, pools=pools)


@torch.no_grad()
def test_a_mean_into_another_value() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = x.sum((2, 3))
        torch.mean(m.a(x), (2, 3), out=y)
        return y

    kernels(forward)
