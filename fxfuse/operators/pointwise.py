"""Arithmetic of a value with a constant: ``x * c``, ``x + c``, ``x - c``, ``c - x``, ``x / c``; and ``-x``."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.algebra.affine import Affine, numbers
from fxfuse.graph.ranks import is_size, recorded_value
from fxfuse.operators.register import row
from fxfuse.operators.roles import AffineSource
from fxfuse.operators.sums import Difference, ReverseDifference, Sum
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.graph.registry import ShapeAndResult


class Arithmetic(AffineSource):
    """One operand is the value, the other a number or a constant tensor that does not enlarge it."""

    def matches(self) -> bool:
        """Whether exactly one operand is constant, and not one that is written into."""
        return self._constant_name() is not None and not (self._flipped and self._in_place) and not is_size(self.node)

    def _constant_name(self) -> str | None:
        names = [name for name in ("input", "other") if self._is_constant(self.call.get(name))]
        return names[0] if len(names) == 1 else None

    def _is_constant(self, operand: object) -> bool:
        number = isinstance(operand, (int, float)) and not isinstance(operand, bool)
        return number or operand in self.call.graph.constants

    @property
    def _flipped(self) -> bool:
        """Whether the constant is on the left."""
        return self._constant_name() == "input"

    @property
    def _in_place(self) -> bool:
        """Whether it writes into its first operand."""
        return bool(self.call.graph.mutated(self.node))

    @property
    def input(self) -> fx.Node:
        """The operand that is not constant."""
        return self._operand("other" if self._flipped else "input")

    def _operand(self, name: str) -> fx.Node:
        value = self.call.get(name)
        require(isinstance(value, fx.Node), Reason.COMPUTED, name=name, value=self.call.path)
        return value

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The constant, if it is a tensor."""
        constant = self.call.tensor(self._constant_name() or "other")
        return (constant,) if isinstance(constant, Tensor) else ()

    @property
    def moves_on(self) -> bool:
        """Whether the value is known to have the same shape and dtype without it, and nobody else sees it written."""
        if self._in_place:
            return False
        before, after = (recorded_value(value) for value in (self.input, self.node))
        if before is None or after is None:
            return False
        return before.dtype == after.dtype and str(before.shape) == str(after.shape)

    @property
    def promotes(self) -> bool:
        """Arithmetic returns the wider of the two dtypes; a norm always returns that of its input."""
        return True

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input; a constant may enlarge the axes along which it has one size."""
        return {axis: size for axis, size in self.sizes_before().items() if size > 1}

    def _constant(self) -> Tensor:
        constant = self.call.tensor(self._constant_name() or "other", required=True)
        device = constant.device if isinstance(constant, Tensor) else "cpu"
        return torch.as_tensor(constant, dtype=torch.float64, device=device).detach()

    def affine(self) -> Affine:
        """Return the affine that the operator's own formula gives."""
        constant = self._constant()
        one, zero = torch.ones_like(constant), torch.zeros_like(constant)
        return self._formula(constant, one, zero)

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:
        raise NotImplementedError

    @property
    def _shifts(self) -> bool:
        """Whether it adds a tensor, which may have any values, or a number that is not zero."""
        return bool(self.tensors) or self.call.get(self._constant_name() or "other") != 0

    def _alpha(self) -> Any:
        alpha = self.call.get("alpha", 1)
        require(isinstance(alpha, (int, float)), Reason.COMPUTED, name="alpha", value=self.call.path)
        return alpha


class Multiply(Arithmetic):
    """``x * c``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        return Affine(constant, zero, shifts=False)


class Add(Arithmetic):
    """``x + alpha * c``, or ``c + alpha * x``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        alpha = self._alpha()
        shifts = self._shifts
        return Affine(alpha * one, constant, shifts) if self._flipped else Affine(one, alpha * constant, shifts)


class Subtract(Arithmetic):
    """``x - alpha * c``, or ``c - alpha * x``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        alpha = self._alpha()
        shifts = self._shifts
        return Affine(-alpha * one, constant, shifts) if self._flipped else Affine(one, -alpha * constant, shifts)


class ReverseSubtract(Subtract):
    """``c - alpha * x``, or ``x - alpha * c`` where the constant is first."""

    @property
    def _flipped(self) -> bool:
        return self._constant_name() == "other"

    @property
    def input(self) -> fx.Node:
        """The operand that is not constant."""
        return self._operand("input" if self._flipped else "other")


class Negate(AffineSource):
    """``-x``."""

    def affine(self) -> Affine:
        """Return the scale -1."""
        scale, shift = numbers(-1.0, 0.0)
        return Affine(scale, shift, shifts=False)


class Divide(Arithmetic):
    """``x / c``; ``c / x`` is not affine, and neither is a rounded quotient."""

    def matches(self) -> bool:
        """Whether the constant is the divisor, and nothing is rounded."""
        return super().matches() and not self._flipped and self.call.get("rounding_mode") is None

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:
        return Affine(one / constant, zero, shifts=False)


_aten = torch.ops.aten
_ALPHA = "input other alpha"
_NEW: ShapeAndResult = {"shape": "broadcast", "result": "new"}
_IN_PLACE: ShapeAndResult = {"shape": "broadcast", "result": "in place"}
# fmt: off
row("mul", Multiply, "input other",
    "mul", "multiply", operator.mul, torch.mul, torch.multiply, _aten.mul.Tensor, _aten.multiply.Tensor, **_NEW)
row("add", Add, _ALPHA, "add", operator.add, torch.add, _aten.add.Tensor, otherwise=Sum, **_NEW)
row("sub", Subtract, _ALPHA,
    "sub", "subtract", operator.sub, torch.sub, torch.subtract, _aten.sub.Tensor, _aten.subtract.Tensor,
    otherwise=Difference, **_NEW)
row("rsub", ReverseSubtract, _ALPHA, torch.rsub, _aten.rsub.Tensor, _aten.rsub.Scalar,
    otherwise=ReverseDifference, **_NEW)
row("div", Divide, "input other rounding_mode",
    "div", "divide", "true_divide", operator.truediv, torch.div, torch.divide, torch.true_divide,
    _aten.div.Tensor, _aten.divide.Tensor, _aten.true_divide.Tensor,
    _aten.div.Tensor_mode, _aten.divide.Tensor_mode, **_NEW)
# In place: what ``x += c`` becomes.
row("imul", Multiply, "input other", operator.imul, **_IN_PLACE)
row("mul_", Multiply, "input other", "mul_", _aten.mul_.Tensor, **_IN_PLACE)
row("iadd", Add, _ALPHA, operator.iadd, otherwise=Sum, **_IN_PLACE)
row("add_", Add, _ALPHA, "add_", _aten.add_.Tensor, otherwise=Sum, **_IN_PLACE)
row("isub", Subtract, _ALPHA, operator.isub, otherwise=Difference, **_IN_PLACE)
row("sub_", Subtract, _ALPHA, "sub_", _aten.sub_.Tensor, otherwise=Difference, **_IN_PLACE)
row("itruediv", Divide, "input other", operator.itruediv, **_IN_PLACE)
row("div_", Divide, "input other", "div_", _aten.div_.Tensor, **_IN_PLACE)
row("neg", Negate, "input",
    "neg", "negative", operator.neg, torch.neg, torch.negative, _aten.neg.default, _aten.negative.default, **_NEW)
