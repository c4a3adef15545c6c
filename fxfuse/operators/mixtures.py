"""Arithmetic of a value with two constants: ``addcmul``, ``addcdiv`` and ``lerp``."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx

from fxfuse.algebra.affine import Affine
from fxfuse.operators.pointwise import Arithmetic
from fxfuse.operators.register import row
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from fxfuse.graph.registry import ShapeAndResult


class Mixture(Arithmetic):
    """One of three operands is the value, in one of the places where the result is an affine of it.

    Attributes:
        places: the names of these places.
    """

    places: ClassVar[tuple[str, ...]]

    def matches(self) -> bool:
        """Whether the value stands in one of the places, and is the operand that is written into, if one is."""
        varying = self._varying
        return len(varying) == 1 and varying[0] in self.places and (varying[0] == "input" or not self._in_place)

    @property
    def _varying(self) -> list[str]:
        """The operands that are no constants."""
        return [name for name in self.call.operator.names[:3] if not self._is_constant(self.call.get(name))]

    @property
    def input(self) -> fx.Node:
        """The operand that is not constant."""
        return self._operand(self._varying[0])

    @property
    def _constants(self) -> dict[str, Any]:
        names = [name for name in self.call.operator.names[:3] if name not in self._varying]
        return {name: self.call.tensor(name, required=True) for name in names}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The constants that are tensors."""
        return tuple(value for value in self._constants.values() if isinstance(value, Tensor))

    def affine(self) -> Affine:
        """Return the affine that the operator's own formula gives."""
        device = next((tensor.device for tensor in self.tensors), "cpu")
        constants = {
            name: torch.as_tensor(value, dtype=torch.float64, device=device).detach()
            for name, value in self._constants.items()
        }
        factor = self.call.get("value", 1)
        require(isinstance(factor, (int, float)), Reason.COMPUTED, name="value", value=self.call.path)
        parts = self._scale_and_shift(self._varying[0], constants, factor)
        return Affine(*torch.broadcast_tensors(*(torch.as_tensor(part, device=device) for part in parts)))

    @abstractmethod
    def _scale_and_shift(self, value: str, constants: dict[str, Tensor], factor: float) -> tuple[Tensor, Tensor]:
        """Return scale and shift, by the name of the operand that is the value, and the others by name."""


class AddProduct(Mixture):
    """``input + value * tensor1 * tensor2``."""

    places = ("input", "tensor1", "tensor2")

    def _scale_and_shift(self, value: str, constants: dict[str, Tensor], factor: float) -> tuple[Tensor, Tensor]:
        if value == "input":
            shift = factor * constants["tensor1"] * constants["tensor2"]
            return torch.ones_like(shift), shift
        return factor * constants["tensor2" if value == "tensor1" else "tensor1"], constants["input"]


class AddQuotient(Mixture):
    """``input + value * tensor1 / tensor2``."""

    places = ("input", "tensor1")

    def _scale_and_shift(self, value: str, constants: dict[str, Tensor], factor: float) -> tuple[Tensor, Tensor]:
        if value == "input":
            shift = factor * constants["tensor1"] / constants["tensor2"]
            return torch.ones_like(shift), shift
        return factor / constants["tensor2"], constants["input"]


class Interpolation(Mixture):
    """``input + weight * (end - input)``."""

    places = ("input", "end")

    def _scale_and_shift(self, value: str, constants: dict[str, Tensor], factor: float) -> tuple[Tensor, Tensor]:
        del factor
        weight = constants["weight"]
        if value == "input":
            return 1 - weight, weight * constants["end"]
        return weight, (1 - weight) * constants["input"]


_aten = torch.ops.aten
_NEW: ShapeAndResult = {"shape": "broadcast", "result": "new"}
_IN_PLACE: ShapeAndResult = {"shape": "broadcast", "result": "in place"}
_TERMS = "input tensor1 tensor2 value"
_ENDS = "input end weight"
# fmt: off
row("addcmul", AddProduct, _TERMS, "addcmul", torch.addcmul, _aten.addcmul.default, **_NEW)
row("addcmul_", AddProduct, _TERMS, "addcmul_", _aten.addcmul_.default, **_IN_PLACE)
row("addcdiv", AddQuotient, _TERMS, "addcdiv", torch.addcdiv, _aten.addcdiv.default, **_NEW)
row("addcdiv_", AddQuotient, _TERMS, "addcdiv_", _aten.addcdiv_.default, **_IN_PLACE)
row("lerp", Interpolation, _ENDS, "lerp", torch.lerp, _aten.lerp.Scalar, _aten.lerp.Tensor, **_NEW)
row("lerp_", Interpolation, _ENDS, "lerp_", _aten.lerp_.Scalar, _aten.lerp_.Tensor, **_IN_PLACE)
