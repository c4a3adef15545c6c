"""Products with a constant matrix, as ATen writes linear layers."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx

from fxfuse.graph.plan import Write
from fxfuse.operators.linear import LinearLayer
from fxfuse.operators.register import row
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from fxfuse.algebra.linear_map import LinearMap

_MATRIX = 2  # axes


class MatrixProduct(LinearLayer):
    """``input @ weight``, and ``bias + input @ weight``: a linear layer whose weight is ``(in, out)``.

    What is stored is mostly ``(out, in)``, and permuted before each call; then the permutation stays.
    """

    def matches(self) -> bool:
        """Whether the right factor is the constant one, and nothing is scaled on the way."""
        unscaled = self.call.get("beta", 1) == 1 and self.call.get("alpha", 1) == 1
        return unscaled and self.call.get("weight") in self.call.graph.constants

    @property
    def _permutation(self) -> fx.Node | None:
        """The node that permutes what is stored, if there is one."""
        node = self.call.arguments["weight"]
        stored = node.args[0] if node.args else None
        return node if isinstance(stored, fx.Node) and stored.op == "get_attr" and _swaps_two_axes(node) else None

    def computed(self) -> dict[str, fx.Node]:
        """Return what is more than a permutation of what is stored."""
        return {name: node for name, node in super().computed().items() if node is not self._permutation}

    @functools.cached_property
    def weight(self) -> Tensor:
        """The weight as it is stored."""
        matrix: Tensor = self.call.tensor("weight", required=True)
        require(matrix.ndim == _MATRIX, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="it is no matrix")
        bias = self.call.tensor("bias")
        vector = bias is None or tuple(bias.shape) == (matrix.shape[1],)
        require(vector, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="its bias is no vector")
        return matrix if self._permutation is None else matrix.t()

    def _split(self, weight: Tensor, groups: int) -> Tensor:  # noqa: ARG002 - a matrix has none
        """Return the one group there is, as ``(out, in)``."""
        return (weight.t() if self._permutation is None else weight)[None]

    def _joined(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape of the matrix as it is stored."""
        _, out, inputs = shape
        return (inputs, out) if self._permutation is None else (out, inputs)

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        """Keep the permutation, and call the function with a bias where there is one now."""
        write = super()._write(linear_map, attributes)
        through = {} if self._permutation is None else {"weight": self._permutation}
        target = _WITH_BIAS.get(self.node.target) if "bias" in write.constants else None
        return Write(write.call, write.constants, through, target)


class Product(MatrixProduct):
    """``input @ weight``, for an input of any number of axes; with a bias it becomes ``linear``."""

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        """Store the matrix as ``linear`` reads it, where there is a bias now."""
        write = super()._write(linear_map, attributes)
        if "bias" not in write.constants:
            return write
        weight, bias = (write.constants[name] for name in ("weight", "bias"))
        if weight is not None and self._permutation is None:
            weight = weight.t().contiguous()
        aten = self.node.target is _aten.matmul.default
        return Write(write.call, {"weight": weight, "bias": bias}, {}, _aten.linear.default if aten else F.linear)


def _swaps_two_axes(node: fx.Node) -> bool:
    swap: tuple[object, ...] = tuple(node.args[1:])
    if node.target in (torch.t, "t", torch.ops.aten.t.default):
        return not swap
    if node.target in (torch.permute, "permute", torch.ops.aten.permute.default):
        return swap in (([1, 0],), ((1, 0),), (1, 0))
    transposes = (torch.transpose, "transpose", torch.ops.aten.transpose.int)
    return node.target in transposes and swap in ((0, 1), (1, 0), (-1, -2), (-2, -1))


_aten = torch.ops.aten
# fmt: off
row("mm", MatrixProduct, "input weight", torch.mm, _aten.mm.default, rank=2, result="new", strides="fixed")
row("matmul", Product, "input weight",
    "matmul", operator.matmul, torch.matmul, _aten.matmul.default, shape="linear", result="new",
    strides="fixed")
row("addmm", MatrixProduct, "bias input weight beta alpha", torch.addmm, _aten.addmm.default,
    rank=2, result="new", strides="fixed")
# fmt: on
_WITH_BIAS: dict[object, Callable[..., Any]] = {torch.mm: torch.addmm, _aten.mm.default: _aten.addmm.default}
