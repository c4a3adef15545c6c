"""The activations that a kernel can take in: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx


@dataclass(frozen=True)
class Activation:
    """An activation with its numbers: its name, torch's own (which may write into its argument), and oneDNN's form."""

    name: str
    plain: Callable[[Tensor], Tensor]
    onednn: str
    numbers: tuple[float, ...] = ()
    algorithm: str = ""
    drops_nan: bool = False  # oneDNN gives a finite number where torch gives NaN


def _clamp(low: float = -1.0, high: float = 1.0, name: str = "hardtanh") -> Activation:
    numbers = (float(low), float(high))
    return Activation(name, lambda x: F.hardtanh_(x, low, high), "hardtanh", numbers, drops_nan=True)


def _gelu(approximate: str = "none") -> Activation:
    return Activation("gelu", lambda x: F.gelu(x, approximate=approximate), "gelu", (), approximate)


def _leaky_relu(slope: float = 0.01) -> Activation:
    return Activation("leaky_relu", lambda x: F.leaky_relu_(x, slope), "leaky_relu", (float(slope),))


RELU = Activation("relu", torch.relu_, "relu", drops_nan=True)
_HARDSWISH = Activation("hardswish", lambda x: F.hardswish(x, inplace=True), "hardswish", drops_nan=True)
_HARDSIGMOID = Activation("hardsigmoid", lambda x: F.hardsigmoid(x, inplace=True), "hardsigmoid", drops_nan=True)

# torch's name, its module, the names of its arguments behind the input, and what makes the activation of them.
_ROWS: tuple[tuple[str, type[nn.Module], tuple[str, ...], Callable[..., Activation]], ...] = (
    ("relu", nn.ReLU, (), lambda: RELU),
    ("relu6", nn.ReLU6, (), lambda: _clamp(0.0, 6.0, "relu6")),
    ("hardtanh", nn.Hardtanh, ("min_val", "max_val"), _clamp),
    ("silu", nn.SiLU, (), lambda: Activation("silu", lambda x: F.silu(x, inplace=True), "swish", (1.0,))),
    ("hardswish", nn.Hardswish, (), lambda: _HARDSWISH),
    ("hardsigmoid", nn.Hardsigmoid, (), lambda: _HARDSIGMOID),
    ("sigmoid", nn.Sigmoid, (), lambda: Activation("sigmoid", torch.sigmoid_, "sigmoid")),
    ("tanh", nn.Tanh, (), lambda: Activation("tanh", torch.tanh_, "tanh")),
    ("gelu", nn.GELU, ("approximate",), _gelu),
    ("leaky_relu", nn.LeakyReLU, ("negative_slope",), _leaky_relu),
)


def _targets(name: str) -> Iterator[Any]:
    """Yield torch's functions and methods of a name."""
    for spelled in (name, f"{name}_"):
        yield from (getattr(home, spelled) for home in (F, torch) if hasattr(home, spelled))
        yield from [spelled] if hasattr(Tensor, spelled) else []
        yield from [getattr(torch.ops.aten, spelled).default] if hasattr(torch.ops.aten, spelled) else []


_BY_TARGET = {target: (make, names) for name, cls, names, make in _ROWS for target in (cls, *_targets(name))}


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
    passed: dict[str, Any] = dict(zip(("input", *names, "inplace"), node.args, strict=False)) | node.kwargs
    passed |= {} if module is None else {name: getattr(module, name) for name in names}
    numbers = [passed[name] for name in names if name in passed]
    plain = all(isinstance(number, (int, float, str)) for number in numbers)
    whole = len(numbers) in (0, len(names)) and passed.keys() <= {"input", "inplace", *names}
    value = passed.get("input")
    return (value, make(*numbers)) if isinstance(value, type(node)) and plain and whole else None
