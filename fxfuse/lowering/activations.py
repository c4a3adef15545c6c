"""The activations that a kernel can take in, by the names of their rows in the table of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch._C import _nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fxfuse.graph.call import Call


@dataclass(frozen=True)
class Activation:
    """An activation with its numbers: its name, torch's own (which may write into its argument), and oneDNN's form."""

    name: str
    plain: Callable[[Tensor], Tensor]
    onednn: str
    numbers: tuple[float, ...] = ()
    algorithm: str = ""
    drops_nan: bool = False  # oneDNN gives a finite number where torch gives NaN


def clamp(low: float, high: float, name: str = "hardtanh") -> Activation:
    """Return ``min(max(x, low), high)``."""
    return Activation(name, lambda x: F.hardtanh_(x, low, high), "hardtanh", (low, high), drops_nan=True)


def _gelu(call: Call) -> Activation:
    algorithm = str(call.get("approximate", "none"))
    return Activation("gelu", lambda x: F.gelu(x, approximate=algorithm), "gelu", (), algorithm)


def _leaky_relu(call: Call) -> Activation:
    slope = float(call.get("negative_slope", 0.01))
    return Activation("leaky_relu", lambda x: F.leaky_relu_(x, slope), "leaky_relu", (slope,))


RELU = Activation("relu", torch.relu_, "relu", drops_nan=True)
SILU = Activation("silu", _nn.silu_, "swish", (1.0,))
HARDSWISH = Activation("hardswish", _nn.hardswish_, "hardswish", drops_nan=True)
HARDSIGMOID = Activation("hardsigmoid", _nn.hardsigmoid_, "hardsigmoid", drops_nan=True)
SIGMOID = Activation("sigmoid", torch.sigmoid_, "sigmoid")
TANH = Activation("tanh", torch.tanh_, "tanh")

ACTIVATIONS: dict[str, Callable[[Call], Activation]] = {
    **{known.name: lambda _, known=known: known for known in (RELU, SILU, HARDSWISH, HARDSIGMOID, SIGMOID, TANH)},  # type: ignore[misc]
    "relu6": lambda _: clamp(0.0, 6.0, "relu6"),
    "hardtanh": lambda call: clamp(float(call.get("min_val", -1.0)), float(call.get("max_val", 1.0))),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
}
"""What makes an activation of a call, by the name of the row."""
