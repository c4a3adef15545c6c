"""Operations that play no role in a fold, of which facts are known."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse.operators.register import SAME, SAME_RANK, VIEW, row

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fxfuse.graph.registry import Columns, ShapeAndResult

_aten = torch.ops.aten


def _rows(
    names: str, *modules: type[nn.Module], arguments: str = "input", in_place: bool = False, **facts: Unpack[Columns]
) -> None:
    """Add a row for each name: modules, functions, overloads but those that write into ``out``, and the method."""
    for name in names.split():
        packet, found = getattr(_aten, name, None), [home for home in (torch, F) if hasattr(home, name)]
        overloads = [getattr(packet, o) for o in packet.overloads() if "out" not in o] if packet is not None else []
        methods = [name] if hasattr(Tensor, name) else []
        functions = [getattr(home, name) for home in found]
        row(name, None, arguments, *modules, *functions, *overloads, *methods, **facts)
    if in_place:
        _rows(" ".join(f"{name}_" for name in names.split()), arguments=arguments, **facts)


# Element by element, or along one axis; a bound of clamp may be a tensor.
_SAME = (
    "abs exp log sqrt rsqrt sin cos elu celu selu mish softplus softsign logsigmoid softmax log_softmax threshold "
    "_softmax _log_softmax fill zero copy masked_fill"
)
_BROADCAST: ShapeAndResult = {"shape": "broadcast", "result": "new"}
_rows(_SAME, in_place=True, **SAME)
_rows("clamp pow", in_place=True, **_BROADCAST)
_rows("sigmoid", nn.Sigmoid, in_place=True, **SAME)
_rows("tanh", nn.Tanh, in_place=True, **SAME)
_rows("relu6", nn.ReLU6, arguments="input inplace", in_place=True, **SAME)
_rows("silu", nn.SiLU, arguments="input inplace", in_place=True, **SAME)
_rows("hardswish", nn.Hardswish, arguments="input inplace", in_place=True, **SAME)
_rows("hardsigmoid", nn.Hardsigmoid, arguments="input inplace", in_place=True, **SAME)
_rows("hardtanh", nn.Hardtanh, arguments="input min_val max_val inplace", in_place=True, **SAME)
_rows("gelu", nn.GELU, arguments="input approximate", in_place=True, **SAME)
_rows("rrelu", nn.RReLU, in_place=True, asks="strides", **SAME)  # chance is drawn in the order of memory
# fmt: off
row("activation", None, "input",
    nn.ELU, nn.CELU, nn.SELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Softmax, nn.Softmax2d, nn.LogSigmoid, nn.LogSoftmax,
    nn.Threshold, nn.Softmin, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, **SAME)
row("arithmetic", None, "input other", operator.abs, operator.pow,
    _aten.add.Scalar, _aten.sub.Scalar, _aten.mul.Scalar, _aten.div.Scalar, _aten.div.Scalar_mode, **_BROADCAST)
row("in place", None, "input other",
    operator.ifloordiv, operator.imod, operator.ipow, operator.imatmul, operator.iand, operator.ior, operator.ixor,
    operator.ilshift, operator.irshift, operator.setitem, "__setitem__", shape="broadcast", result="in place")
row("sum", None, "input", _aten.sum.default, _aten.mean.default, rank=0, result="new")
row("detach", None, "input", "detach", torch.detach, _aten.detach.default, shape="same", result="view")
row("t", None, "input", "t", torch.t, _aten.t.default, **VIEW)
row("ravel", None, "input", "ravel", torch.ravel, _aten.ravel.default, rank=1, result="maybe view")
row("lp_pool", None, "input", nn.LPPool1d, nn.LPPool2d, nn.LPPool3d, F.lp_pool1d, F.lp_pool2d, **SAME_RANK)
row("local_response_norm", None, "input", nn.LocalResponseNorm, F.local_response_norm, asks="strides", **SAME)

# Products of two values.
_rows("bmm scaled_dot_product_attention", result="new", strides="fixed")
row("mm", None, "input other", "mm", "addmm", rank=2, result="new", strides="fixed")

# What sees no values.
_rows("size numel get_device is_floating_point sym_size sym_numel _assert_tensor_metadata",
      result="number", asks="shape")
_rows("dim ndimension", result="number", asks="rank")
_rows("new_zeros new_ones new_empty new_full zeros_like ones_like empty_like", result="new", asks="shape")

# What depends on strides, or tells them.
_rows("view_as_complex as_strided as_strided_scatter", result="view", asks="strides")
_rows("stride is_contiguous storage_offset data_ptr", result="number", asks="strides")
row("view", None, "input", _aten.view.dtype, result="view", asks="strides")
row("resize_", None, "input", "resize_", "set_", result="in place", asks="strides")
