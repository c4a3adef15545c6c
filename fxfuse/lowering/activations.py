"""The activations that a kernel can take in: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import fx


@dataclass(frozen=True)
class Activation:
    """An activation with its numbers.

    Attributes:
        name: the field's name.
        numbers: its arguments, in oneDNN's order.
        plain: the same in torch; it may write into its argument, and returns the result.
        onednn: oneDNN's name.
        algorithm: oneDNN's name of the variant, for GELU.
        drops_nan: oneDNN gives a finite number where torch gives NaN.
    """

    name: str
    plain: Callable[[Tensor], Tensor]
    onednn: str
    numbers: tuple[float, ...] = ()
    algorithm: str = ""
    drops_nan: bool = False


def _clamp(name: str, low: float, high: float) -> Activation:
    return Activation(name, lambda x: F.hardtanh_(x, low, high), "hardtanh", (low, high), "", drops_nan=True)


def _gelu(approximate: str = "none") -> Activation:
    return Activation("gelu", lambda x: F.gelu(x, approximate=approximate), "gelu", (), approximate)


def _leaky(negative_slope: float = 0.01) -> Activation:
    return Activation("leaky_relu", lambda x: F.leaky_relu_(x, negative_slope), "leaky_relu", (negative_slope,))


RELU = Activation("relu", torch.relu_, "relu", (), "", drops_nan=True)
_RELU6 = _clamp("relu6", 0.0, 6.0)
_SILU = Activation("silu", lambda x: F.silu(x, inplace=True), "swish", (1.0,))
_SWISH = Activation("hardswish", lambda x: F.hardswish(x, inplace=True), "hardswish", (), "", drops_nan=True)
_SIGMOID = Activation("hardsigmoid", lambda x: F.hardsigmoid(x, inplace=True), "hardsigmoid", (), "", drops_nan=True)

_aten = torch.ops.aten
# What makes the activation, the names of its arguments behind the input, and what calls it.
_ROWS: tuple[tuple[Callable[..., Activation], tuple[str, ...], tuple[Any, ...]], ...] = (
    (
        lambda: RELU,
        (),
        (nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_", _aten.relu.default, _aten.relu_.default),
    ),
    (lambda: _RELU6, (), (nn.ReLU6, F.relu6, _aten.relu6.default)),
    (
        lambda min_val=-1.0, max_val=1.0: _clamp("hardtanh", float(min_val), float(max_val)),
        ("min_val", "max_val"),
        (nn.Hardtanh, F.hardtanh, F.hardtanh_, _aten.hardtanh.default, _aten.hardtanh_.default),
    ),
    (lambda: _SILU, (), (nn.SiLU, F.silu, _aten.silu.default, _aten.silu_.default)),
    (lambda: _SWISH, (), (nn.Hardswish, F.hardswish, _aten.hardswish.default, _aten.hardswish_.default)),
    (lambda: _SIGMOID, (), (nn.Hardsigmoid, F.hardsigmoid, _aten.hardsigmoid.default, _aten.hardsigmoid_.default)),
    (
        lambda: Activation("sigmoid", torch.sigmoid_, "sigmoid"),
        (),
        (nn.Sigmoid, torch.sigmoid, F.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_", _aten.sigmoid.default),
    ),
    (
        lambda: Activation("tanh", torch.tanh_, "tanh"),
        (),
        (nn.Tanh, torch.tanh, F.tanh, torch.tanh_, "tanh", "tanh_", _aten.tanh.default),
    ),
    (_gelu, ("approximate",), (nn.GELU, F.gelu, _aten.gelu.default)),
    (
        _leaky,
        ("negative_slope",),
        (nn.LeakyReLU, F.leaky_relu, F.leaky_relu_, _aten.leaky_relu.default, _aten.leaky_relu_.default),
    ),
)
_BY_TARGET = {target: (make, names) for make, names, targets in _ROWS for target in targets}


def activation_at(node: fx.Node, module: nn.Module | None) -> tuple[fx.Node, Activation] | None:
    """Return what an activation reads, and the activation, None for everything else.

    Args:
        node: the node.
        module: the module that it calls, if it calls one; without hooks.
    """
    target = node.target if module is None else type(module)
    row = _BY_TARGET.get(target) if node.op in ("call_module", "call_function", "call_method") else None
    if row is None or (module is not None and "forward" in module.__dict__):
        return None
    make, names = row
    passed: Mapping[str, Any] = dict(zip(("input", *names, "inplace"), node.args, strict=False)) | dict(node.kwargs)
    if module is not None:
        passed = {**passed, **{name: getattr(module, name) for name in names}}
    value = passed.get("input")
    numbers = {name: passed[name] for name in names if name in passed}
    plain = all(isinstance(number, (int, float, str)) for number in numbers.values())
    if not isinstance(value, type(node)) or not plain or passed.keys() - {"input", "inplace", *names}:
        return None
    return value, make(**numbers)
