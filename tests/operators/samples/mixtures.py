"""Calls of ``addcmul``, ``addcdiv`` and ``lerp`` with two constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.operators.calls import Function, Method
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten
X = (2, 3, 4, 4)


def calls() -> Iterator[tuple[nn.Module, Any, Tensor]]:
    """A module that makes one call, the target of the call, and an input."""
    one, two = parameter(3, 1, 1), parameter(1, 3, 1, 1, seed=1)
    for name, last in (("addcmul", 2), ("addcdiv", 1), ("lerp", 1)):
        function = getattr(torch, name)
        overload = aten.lerp.Tensor if name == "lerp" else getattr(aten, name).default
        for target in (function, overload):
            for place in range(last + 1):
                yield Function(target, one, two, behind=place), target, randn(*X)
        yield Method(name, one, two), name, randn(*X)
        yield Method(name, one, randn(1)[0], flipped=True), name, randn(*X)
        in_place = aten.lerp_.Tensor if name == "lerp" else getattr(aten, f"{name}_").default
        yield Method(f"{name}_", one, two), f"{name}_", randn(*X)
        yield Function(in_place, one, two), in_place, randn(*X)
    for name in ("addcmul", "addcdiv"):
        yield Method(name, one, two, value=-3), name, randn(*X)
        yield Function(getattr(torch, name), one, two, behind=1, value=0.5), getattr(torch, name), randn(*X)
    for target in (torch.lerp, aten.lerp.Scalar):
        yield Function(target, one, 0.3), target, randn(*X)
        yield Function(target, one, 0.3, behind=1), target, randn(*X)
    yield Function(aten.lerp_.Scalar, one, -2), aten.lerp_.Scalar, randn(*X)
