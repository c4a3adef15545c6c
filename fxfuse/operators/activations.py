"""Activations that pass a positive scale: ``f(scale * x) == scale * f(x)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from fxfuse.operators.passage import Passage
from fxfuse.operators.register import SAME, row

if TYPE_CHECKING:
    from fxfuse.algebra.affine import Affine


class Homogeneous(Passage):
    """ReLU, leaky ReLU and PReLU, whatever the slopes are.

    Example:
        >>> import torch
        >>> from fxfuse.extend import Homogeneous, register
        >>> register("abs", Homogeneous, arguments=["input"], functions=[torch.abs], replace=True).name
        'abs'
    """

    def passes(self, affine: Affine) -> None:
        """Refuse a shift, and scales that turn values round."""
        self.require(not affine.shifts and bool((affine.scale > 0).all()))


_aten = torch.ops.aten
# fmt: off
row("relu", Homogeneous, "input inplace",
    nn.ReLU, "relu", "relu_", F.relu, F.relu_, torch.relu, torch.relu_, _aten.relu.default, _aten.relu_.default, **SAME)
row("leaky_relu", Homogeneous, "input negative_slope inplace",
    nn.LeakyReLU, F.leaky_relu, F.leaky_relu_, _aten.leaky_relu.default, _aten.leaky_relu_.default, **SAME)
row("prelu", Homogeneous, "input weight",
    nn.PReLU, "prelu", F.prelu, torch.prelu, _aten.prelu.default, _aten._prelu_kernel.default, **SAME)
