"""Arithmetic of a value with constants, element by element: ``x * c``, ``c - x``, ``addcmul``, ``lerp``; and ``-x``."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx

from fxfuse.algebra.affine import Affine, numbers
from fxfuse.graph.ranks import is_size, recorded_value
from fxfuse.operators.register import row
from fxfuse.operators.roles import AffineSource
from fxfuse.operators.sums import Difference, ReverseDifference, Sum
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fxfuse.graph.registry import ShapeAndResult

_OPTIONS = ("alpha", "value", "rounding_mode")


class Arithmetic(AffineSource):
    """One operand is the value, the others are numbers or constant tensors that do not enlarge it.

    Attributes:
        function: the function of torch that does it.
        added: the operands that can be the value, each with the operand that is added to it, None for none.
        promotes_whole: it takes whole numbers beside floats, and gives floats.
    """

    function: ClassVar[Callable[..., Tensor]]
    added: ClassVar[Mapping[str, str | None]]
    promotes_whole: ClassVar[bool] = False

    def matches(self) -> bool:
        """Whether exactly one operand is a value, in one of these places, and no constant is written into."""
        varying = self._varying
        if len(varying) != 1 or varying[0] not in self.added or is_size(self.node):
            return False
        return varying[0] == "input" or not self._in_place

    @property
    def _operands(self) -> list[str]:
        return [name for name in self.call.operator.names if name not in _OPTIONS]

    @property
    def _varying(self) -> list[str]:
        """The operands that are no constants."""
        return [name for name in self._operands if not self._is_constant(self.call.get(name))]

    def _is_constant(self, operand: object) -> bool:
        number = isinstance(operand, (int, float)) and not isinstance(operand, bool)
        return number or operand in self.call.graph.constants

    @property
    def _in_place(self) -> bool:
        """Whether it writes into its first operand."""
        return bool(self.call.graph.mutated(self.node))

    @property
    def input(self) -> fx.Node:
        """The operand that is not constant."""
        name = self._varying[0]
        value = self.call.get(name)
        require(isinstance(value, fx.Node), Reason.COMPUTED, name=name, value=self.call.path)
        return value

    @property
    def _constants(self) -> dict[str, Any]:
        names = [name for name in self._operands if name not in self._varying]
        return {name: self.call.tensor(name, required=True, whole=self.promotes_whole) for name in names}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The constants that are tensors."""
        return tuple(value for value in self._constants.values() if isinstance(value, Tensor))

    @property
    def may_move_downstream(self) -> bool:
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

    def affine(self) -> Affine:
        """Return the affine that the function itself gives, computed in float64."""
        (value,), constants = self._varying, self._constants
        added = self.added[value]
        device = next((tensor.device for tensor in self.tensors), "cpu")

        def result(**operands: Any) -> Tensor:
            given = {**constants, **operands}
            as_tensors = {n: torch.as_tensor(x, dtype=torch.float64, device=device) for n, x in given.items()}
            return type(self).function(**as_tensors, **self._options()).detach()

        if added is None:
            scale = result(**{value: 1.0})
            return Affine(scale, torch.zeros_like(scale), shifts=False)
        # f(x) = f'(1) * x + f(0), where f' is f without what is added to x
        scale, shift = torch.broadcast_tensors(result(**{value: 1.0, added: 0.0}), result(**{value: 0.0}))
        # A tensor may have any values; a number that is zero shifts nothing.
        return Affine(scale, shift, isinstance(constants[added], Tensor) or constants[added] != 0)

    def _options(self) -> dict[str, Any]:
        options = {name: self.call.get(name) for name in _OPTIONS if self.call.get(name) is not None}
        for name, number in options.items():
            require(isinstance(number, (int, float)), Reason.COMPUTED, name=name, value=self.call.path)
        return options


class Multiply(Arithmetic):
    """``x * c``."""

    function = torch.mul
    promotes_whole = True
    added: ClassVar = {"input": None, "other": None}


_EITHER = {"input": "other", "other": "input"}
"""Of a sum or difference: either operand is the value, and the other one is added."""


class Add(Arithmetic):
    """``x + alpha * c``, or ``c + alpha * x``."""

    function = torch.add
    promotes_whole = True
    added: ClassVar = _EITHER


class Subtract(Arithmetic):
    """``x - alpha * c``, or ``c - alpha * x``."""

    function = torch.sub
    promotes_whole = True
    added: ClassVar = _EITHER


class ReverseSubtract(Arithmetic):
    """``c - alpha * x``, or ``x - alpha * c`` where the constant is first."""

    function = torch.rsub
    promotes_whole = True
    added: ClassVar = _EITHER


class Divide(Arithmetic):
    """``x / c``; ``c / x`` is not affine, and neither is a rounded quotient."""

    function = torch.div
    promotes_whole = True
    added: ClassVar = {"input": None}

    def matches(self) -> bool:
        """Whether the constant is the divisor, and nothing is rounded."""
        return super().matches() and self.call.get("rounding_mode") is None


class AddProduct(Arithmetic):
    """``input + value * tensor1 * tensor2``."""

    function = torch.addcmul
    added: ClassVar = {"input": "tensor1", "tensor1": "input", "tensor2": "input"}


class AddQuotient(Arithmetic):
    """``input + value * tensor1 / tensor2``."""

    function = torch.addcdiv
    added: ClassVar = {"input": "tensor1", "tensor1": "input"}


class Interpolation(Arithmetic):
    """``input + weight * (end - input)``."""

    function = torch.lerp
    added: ClassVar = {"input": "end", "end": "input"}


class Negate(AffineSource):
    """``-x``."""

    def affine(self) -> Affine:
        """Return the scale -1."""
        scale, shift = numbers(-1.0, 0.0)
        return Affine(scale, shift, shifts=False)


_aten = torch.ops.aten
_ALPHA = "input other alpha"
_TERMS = "input tensor1 tensor2 value"
_ENDS = "input end weight"
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
row("addcmul", AddProduct, _TERMS, "addcmul", torch.addcmul, _aten.addcmul.default, **_NEW)
row("addcdiv", AddQuotient, _TERMS, "addcdiv", torch.addcdiv, _aten.addcdiv.default, **_NEW)
row("lerp", Interpolation, _ENDS, "lerp", torch.lerp, _aten.lerp.Scalar, _aten.lerp.Tensor, **_NEW)
row("neg", Negate, "input",
    "neg", "negative", operator.neg, torch.neg, torch.negative, _aten.neg.default, _aten.negative.default, **_NEW)
# In place: what ``x += c`` becomes.
row("imul", Multiply, "input other", operator.imul, **_IN_PLACE)
row("mul_", Multiply, "input other", "mul_", _aten.mul_.Tensor, **_IN_PLACE)
row("iadd", Add, _ALPHA, operator.iadd, otherwise=Sum, **_IN_PLACE)
row("add_", Add, _ALPHA, "add_", _aten.add_.Tensor, otherwise=Sum, **_IN_PLACE)
row("isub", Subtract, _ALPHA, operator.isub, otherwise=Difference, **_IN_PLACE)
row("sub_", Subtract, _ALPHA, "sub_", _aten.sub_.Tensor, otherwise=Difference, **_IN_PLACE)
row("itruediv", Divide, "input other", operator.itruediv, **_IN_PLACE)
row("div_", Divide, "input other", "div_", _aten.div_.Tensor, **_IN_PLACE)
row("addcmul_", AddProduct, _TERMS, "addcmul_", _aten.addcmul_.default, **_IN_PLACE)
row("addcdiv_", AddQuotient, _TERMS, "addcdiv_", _aten.addcdiv_.default, **_IN_PLACE)
row("lerp_", Interpolation, _ENDS, "lerp_", _aten.lerp_.Scalar, _aten.lerp_.Tensor, **_IN_PLACE)
