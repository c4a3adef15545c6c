"""Arithmetic of a value with a constant: ``x * c``, ``x + c``, ``x - c``, ``c - x``, ``x / c``; and ``-x``."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.algebra.affine import Affine
from fxfuse.graph.ranks import is_size, recorded_value
from fxfuse.operators.register import register
from fxfuse.operators.roles import AffineSource
from fxfuse.operators.sums import Difference, ReverseDifference, Sum
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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

    def _alpha(self) -> Any:
        alpha = self.call.get("alpha", 1)
        require(isinstance(alpha, (int, float)), Reason.COMPUTED, name="alpha", value=self.call.path)
        return alpha


class Multiply(Arithmetic):
    """``x * c``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        return Affine(constant, zero)


class Add(Arithmetic):
    """``x + alpha * c``, or ``c + alpha * x``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        alpha = self._alpha()
        return Affine(alpha * one, constant) if self._flipped else Affine(one, alpha * constant)


class Subtract(Arithmetic):
    """``x - alpha * c``, or ``c - alpha * x``."""

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:  # noqa: ARG002
        alpha = self._alpha()
        return Affine(-alpha * one, constant) if self._flipped else Affine(one, -alpha * constant)


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
        return Affine(*(torch.tensor(value, dtype=torch.float64, device="cpu") for value in (-1.0, 0.0)))


class Divide(Arithmetic):
    """``x / c``; ``c / x`` is not affine, and neither is a rounded quotient."""

    def matches(self) -> bool:
        """Whether the constant is the divisor."""
        return super().matches() and not self._flipped

    def _formula(self, constant: Tensor, one: Tensor, zero: Tensor) -> Affine:
        return Affine(one / constant, zero)


def _register(
    name: str, view: type[Arithmetic], functions: list[Callable[..., Any]], otherwise: type[Sum] | None = None
) -> None:
    methods = [name] if hasattr(Tensor, name) else []
    arguments = ("input", "other") if otherwise is None else ("input", "other", "alpha")
    register(name, view, arguments=arguments, functions=functions, methods=methods, otherwise=otherwise)


_aten = torch.ops.aten
_MULTIPLY: list[Any] = [operator.mul, torch.mul, torch.multiply, _aten.mul.Tensor, _aten.multiply.Tensor]
_SUBTRACT: list[Any] = [operator.sub, torch.sub, torch.subtract, _aten.sub.Tensor, _aten.subtract.Tensor]
_DIVIDE: list[Any] = [operator.truediv, torch.div, torch.true_divide, _aten.div.Tensor, _aten.true_divide.Tensor]
_register("mul", Multiply, _MULTIPLY)
_register("add", Add, [operator.add, torch.add, _aten.add.Tensor], Sum)
_register("sub", Subtract, _SUBTRACT, Difference)
_register("rsub", ReverseSubtract, [torch.rsub, _aten.rsub.Tensor, _aten.rsub.Scalar], ReverseDifference)
_register("div", Divide, _DIVIDE)
# In place: what ``x += c`` becomes.
_register("imul", Multiply, [operator.imul])
_register("mul_", Multiply, [_aten.mul_.Tensor])
_register("iadd", Add, [operator.iadd], Sum)
_register("add_", Add, [_aten.add_.Tensor], Sum)
_register("isub", Subtract, [operator.isub], Difference)
_register("sub_", Subtract, [_aten.sub_.Tensor], Difference)
_register("itruediv", Divide, [operator.itruediv])
_register("div_", Divide, [_aten.div_.Tensor])
register(
    "neg",
    Negate,
    arguments=("input",),
    functions=[operator.neg, torch.neg, torch.negative, _aten.neg.default, _aten.negative.default],
    methods=["neg"],
)
