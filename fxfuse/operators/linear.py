"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import fx, nn

from fxfuse.call import Write
from fxfuse.linear_map import LinearMap
from fxfuse.operator_table import register
from fxfuse.operators.roles import Linear
from fxfuse.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_LINEAR_RANK = 2


class Convolution(Linear):
    """``weight`` is ``(groups * out, in, *taps)``; stride, padding and dilation do not matter to the channels."""

    @functools.cached_property
    def weight(self) -> Tensor:
        """The weight as it is stored now."""
        return self.call.tensor("weight", required=True)

    @property
    def output_axis(self) -> int:
        """The axis before the spatial ones."""
        return -1 - (self.weight.ndim - _LINEAR_RANK)

    def linear_map(self) -> LinearMap:
        """Return the weight, split into groups, and the bias."""
        bias = self.call.tensor("bias")
        return LinearMap(self._split(self.weight.detach()), None if bias is None else bias.detach())

    def with_map(self, linear_map: LinearMap) -> Write:
        """Round into new tensors of the same layout."""
        weight = torch.empty_like(self.weight).detach()
        linear_map.round_into(self._split(weight))
        stored = {"weight": weight}
        if linear_map.bias is not None:
            stored["bias"] = linear_map.bias.to(weight.device, weight.dtype, copy=True)
        for name, tensor in stored.items():
            self._require_finite(name, tensor)
        return Write(self.call, stored)

    @property
    def reads_zeros(self) -> bool:
        """Whether it pads with zeros; a transposed convolution lets fewer taps reach its border."""
        taps = self.weight.shape[_LINEAR_RANK:]
        if self._transposed:
            return bool(taps)
        if self.call.get("padding_mode", "zeros") != "zeros":
            return False
        padding = self.call.get("padding", 0)
        if isinstance(padding, str):
            return padding != "valid" and any(size > 1 for size in taps)
        return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)

    @property
    def _transposed(self) -> bool:
        # One function of ATen does both; modules of either kind say which they are.
        return bool(self.call.get("transposed", False))

    def _split(self, weight: Tensor) -> Tensor:
        """Return a view of a weight as ``(groups, out, in, *taps)``."""
        split = weight.unflatten(0, (self.call.get("groups", 1), -1))
        # The weight of a transposed convolution is (groups * in, out, *taps).
        return split.transpose(1, 2) if self._transposed else split

    def _require_finite(self, name: str, tensor: Tensor) -> None:
        # Extrema are NaN if any element is, and need no mask of the size of the weight.
        finite = not tensor.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(tensor))
        require(finite, Reason.NOT_FINITE, value=self.call.path, name=name, dtype=tensor.dtype)


class TransposedConvolution(Convolution):
    """``weight`` is ``(groups * in, out, *taps)``: the output channels are the second axis, within each group."""

    @property
    def _transposed(self) -> bool:
        return True


class LinearLayer(Convolution):
    """``weight`` is ``(out, in)``: a convolution without taps."""

    @property
    def output_axis(self) -> int:
        """The last axis."""
        return -1

    @property
    def reads_zeros(self) -> bool:
        """Never."""
        return False

    def _split(self, weight: Tensor) -> Tensor:
        """Return the one group there is."""
        fits = weight.ndim == _LINEAR_RANK
        require(fits, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="its weight is a vector")
        return weight[None]


class MatrixProduct(LinearLayer):
    """``input @ weight``, and ``bias + input @ weight``: a linear layer whose weight is ``(in, out)``.

    What is stored is mostly ``(out, in)``, and permuted before each call; then the permutation stays.
    """

    def matches(self) -> bool:
        """Whether the right factor is the constant one, and nothing is scaled on the way."""
        known = set(self.call.arguments) <= set(self.call.operator.arguments)
        unscaled = self.call.get("beta", 1) == 1 and self.call.get("alpha", 1) == 1
        return known and unscaled and self.call.get("weight", None) in self.call.graph.constants

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
        require(matrix.ndim == _LINEAR_RANK, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="it is no matrix")
        bias = self.call.tensor("bias")
        vector = bias is None or tuple(bias.shape) == (matrix.shape[1],)
        require(vector, Reason.NOT_PER_CHANNEL, value=self.call.path, detail="its bias is no vector")
        return matrix if self._permutation is None else matrix.t()

    def _split(self, weight: Tensor) -> Tensor:
        """Return the one group there is, as ``(out, in)``."""
        return (weight.t() if self._permutation is None else weight)[None]

    def with_map(self, linear_map: LinearMap) -> Write:
        """Keep the permutation, and call the function with a bias where there is one now."""
        write = super().with_map(linear_map)
        through = {} if self._permutation is None else {"weight": self._permutation}
        target = _WITH_BIAS.get(self.node.target) if "bias" in write.constants else None
        return Write(write.call, write.constants, through, target)


def _swaps_two_axes(node: fx.Node) -> bool:
    swap: tuple[object, ...] = tuple(node.args[1:])
    if node.target in (torch.t, "t", torch.ops.aten.t.default):
        return not swap
    if node.target in (torch.permute, "permute", torch.ops.aten.permute.default):
        return swap in (([1, 0],), ((1, 0),), (1, 0))
    transposes = (torch.transpose, "transpose", torch.ops.aten.transpose.int)
    return node.target in transposes and swap in ((0, 1), (1, 0), (-1, -2), (-2, -1))


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")

_aten = torch.ops.aten
_TRANSPOSED_1D = [F.conv_transpose1d, _aten.conv_transpose1d.default]
_TRANSPOSED_2D = [F.conv_transpose2d, _aten.conv_transpose2d.input]
_TRANSPOSED_3D = [F.conv_transpose3d, _aten.conv_transpose3d.input]
_Row: TypeAlias = "tuple[str, type[Linear], tuple[str, ...], type[nn.Module], list[Callable[..., Any]]]"
_ROWS: tuple[_Row, ...] = (
    ("conv1d", Convolution, _CONVOLUTION, nn.Conv1d, [F.conv1d, _aten.conv1d.default, _aten.conv1d.padding]),
    ("conv2d", Convolution, _CONVOLUTION, nn.Conv2d, [F.conv2d, _aten.conv2d.default, _aten.conv2d.padding]),
    ("conv3d", Convolution, _CONVOLUTION, nn.Conv3d, [F.conv3d, _aten.conv3d.default, _aten.conv3d.padding]),
    (
        "conv_transpose1d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose1d,
        [F.conv_transpose1d, _aten.conv_transpose1d.default],
    ),
    (
        "conv_transpose2d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose2d,
        [F.conv_transpose2d, _aten.conv_transpose2d.input],
    ),
    (
        "conv_transpose3d",
        TransposedConvolution,
        _TRANSPOSED,
        nn.ConvTranspose3d,
        [F.conv_transpose3d, _aten.conv_transpose3d.input],
    ),
    ("linear", LinearLayer, ("input", "weight", "bias"), nn.Linear, [F.linear, _aten.linear.default]),
)
for _name, _view, _arguments, _module, _functions in _ROWS:
    register(_name, _view, arguments=_arguments, modules=[_module], functions=_functions)

_CORE_CONVOLUTION = (*_CONVOLUTION[:6], "transposed", "output_padding", "groups")
register(
    "convolution", Convolution, arguments=_CORE_CONVOLUTION, functions=[torch.convolution, _aten.convolution.default]
)
register("mm", MatrixProduct, arguments=("input", "weight"), functions=[torch.mm, _aten.mm.default])
register(
    "addmm",
    MatrixProduct,
    arguments=("bias", "input", "weight", "beta", "alpha"),
    functions=[torch.addmm, _aten.addmm.default],
)
_WITH_BIAS: dict[object, Callable[..., Any]] = {torch.mm: torch.addmm, _aten.mm.default: _aten.addmm.default}
