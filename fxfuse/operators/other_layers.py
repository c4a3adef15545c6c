"""Embeddings, and what torchvision has, which need not be installed: deformable convolutions, stochastic depth."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import fx, nn

from fxfuse.algebra.geometry import Geometry, Misfit
from fxfuse.algebra.linear_map import LinearMap, are_finite, split, table
from fxfuse.graph.plan import Write
from fxfuse.graph.registry import LATE
from fxfuse.operators.linear import Convolution
from fxfuse.operators.noops import Dropout
from fxfuse.operators.register import SAME_RANK, row
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor

    from fxfuse.graph.call import Call
    from fxfuse.graph.registry import Axes


class Embedding(Linear):
    """``weight[input]``, with a weight of shape ``(number, out)``.

    It is linear in a vector that is one at the number, and zero elsewhere.  Such a vector sums to one, so that a bias
    goes into every row.
    """

    def matches(self) -> bool:
        """Whether rows stay as they are: ``max_norm`` writes into those that are too long."""
        return self.call.get("max_norm") is None and isinstance(self.call.arguments.get("input"), fx.Node)

    @property
    def inputs(self) -> list[fx.Node]:
        """None: numbers of rows have no affine."""
        return []

    @property
    def output_axis(self) -> int:
        """The last axis."""
        return -1

    @property
    def reads_zeros(self) -> bool:
        """Never."""
        return False

    @functools.cached_property
    def weight(self) -> Tensor:
        """The table as it is stored now."""
        return self.call.tensor("weight", required=True)

    def linear_map(self) -> LinearMap:
        """Return the table, with the numbers as inputs."""
        others = self.call.graph.readers.others(self.weight, self._reader)
        other = "another call" if others[:1] == [self.call.path] else "".join(others[:1])
        detail = f"by a copy of the table that {other} reads too"
        require(not others, Reason.WOULD_GROW, value=self.call.path, detail=detail)
        rows = split(self.weight, 1, True)  # noqa: FBT003 - noted by position
        return LinearMap(rows, None)

    @property
    def _reader(self) -> fx.Node:
        """The node that reads the table for this call alone."""
        value = self.call.arguments["weight"]
        alone = isinstance(value, fx.Node) and value.op == "get_attr" and len(value.users) == 1
        return value if alone else self.call.node

    def with_map(self, linear_map: LinearMap) -> Write:
        """Round into a new table, with the bias in each row."""
        weight = table(self.weight, linear_map.stored, linear_map.factor, linear_map.bias)
        require(are_finite(weight), Reason.NOT_FINITE, value=self.call.path, dtype=weight.dtype)
        return Write(self.call, {"weight": weight})


class DeformableConvolution(Convolution):
    """Linear in its weight and in its input, of which it reads other positions than a convolution does.

    Its function counts the groups itself; as one group, only a scale that is the same for all of them passes it.
    """

    def __init__(self, call: Call) -> None:
        """Leave out the zeros that torchvision passes for no bias."""
        bias = call.arguments.get("bias")
        none = isinstance(bias, fx.Node) and bias.target is torch.ops.aten.zeros.default
        super().__init__(replace(call, arguments={**call.arguments, "bias": None}) if none else call)

    @property
    def reads_zeros(self) -> bool:
        """Always: its positions may lie outside of the input, where there are zeros."""
        return True

    def taken_sizes(self) -> Mapping[int, int]:
        """Return nothing: the function does not say how many groups there are."""
        return {}

    def geometry(self) -> Geometry:
        """Raise: where its taps lie is computed."""
        raise Misfit("it computes where its taps lie")


def _one_more(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    before = axes(arguments.get("input"))
    return None if before is None else before + 1


_OPTIONS = "padding_idx max_norm norm_type scale_grad_by_freq sparse"
_aten = torch.ops.aten
# fmt: off
row("embedding", Embedding, f"input weight {_OPTIONS}", nn.Embedding, F.embedding,
    rank=_one_more, result="new", strides="fixed")
row("embedding", Embedding, "weight input padding_idx scale_grad_by_freq sparse",
    torch.embedding, _aten.embedding.default, rank=_one_more, result="new", strides="fixed")
# fmt: on


def _add_rows() -> None:
    ops: Any = sys.modules["torchvision.ops"]
    facts: Any = {"spatial": 2, "takes": (4,), "strides": "dense", **SAME_RANK}
    arguments = "input offset weight bias stride padding dilation mask"
    row("deform_conv2d", DeformableConvolution, arguments, ops.deform_conv2d, **facts)
    row("deform_conv2d", DeformableConvolution, f"{arguments} groups", ops.DeformConv2d, **facts)
    row(
        "dropout",
        Dropout,
        "input p mode training",
        ops.stochastic_depth,
        ops.StochasticDepth,
        shape="same",
        result="view",
    )  # of whole samples
    sizes = "stride_h stride_w pad_h pad_w dil_h dil_w groups offset_groups use_mask"
    overload = torch.ops.torchvision.deform_conv2d.default
    row("deform_conv2d", DeformableConvolution, f"input weight offset mask bias {sizes}", overload, **facts)


LATE["torchvision.ops"] = _add_rows
