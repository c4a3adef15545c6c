"""Calls of activations, which act on each element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from tests.operators.calls import Function, Method, Single
from tests.operators.sample import IMAGE, Sample, along, carrier
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from collections.abc import Iterator


aten = torch.ops.aten
POSITIVE_SCALES = along(1, positive=True, keeps=0)


def calls() -> Iterator[Sample]:
    x, slopes = randn(*IMAGE), parameter(8, seed=3)
    for call in (
        *(Single(nn.ReLU()), Single(nn.ReLU(inplace=True))),
        *(Function(F.relu), Function(F.relu, by_keyword="input"), Function(F.relu, inplace=True)),
        *(Function(torch.relu), Function(torch.relu_), Method("relu"), Method("relu_")),
        *(Function(aten.relu.default), Function(aten.relu_.default)),
        *(Single(nn.LeakyReLU()), Single(nn.LeakyReLU(-1.5)), Single(nn.LeakyReLU(2.5, inplace=True))),
        *(Function(F.leaky_relu), Function(F.leaky_relu, 0.3), Function(F.leaky_relu, negative_slope=-0.5)),
        *(Function(F.leaky_relu, 0.3, inplace=True), Function(F.leaky_relu_, 0.3)),
        *(Function(aten.leaky_relu.default, -2), Function(aten.leaky_relu_.default)),
        *(Single(nn.PReLU().double()), Single(nn.PReLU(8, init=-0.5).double())),
        *(Function(F.prelu, slopes), Function(F.prelu, weight=parameter(1), by_keyword="input")),
        *(Method("prelu", slopes), Method("prelu", weight=slopes)),
        *(Function(aten.prelu.default, slopes), Function(aten._prelu_kernel.default, parameter(1, 8, 1, 1))),
    ):
        yield carrier(call, x, POSITIVE_SCALES, POSITIVE_SCALES)
    everywhere = along(0, -1, positive=True, keeps=0)
    yield carrier(Function(F.relu), x, everywhere, everywhere)
    yield carrier(Single(nn.PReLU(8).double()), randn(3, 8), POSITIVE_SCALES, POSITIVE_SCALES)
