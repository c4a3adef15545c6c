"""Products with a constant matrix, as ATen writes linear layers."""

from __future__ import annotations

import functools
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx
from torch._ops import OpOverload

from fxfuse.graph.plan import Write
from fxfuse.operators.linear import LinearLayer
from fxfuse.operators.register import row
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from fxfuse.algebra.linear_map import LinearMap
    from fxfuse.graph.call import Call
    from fxfuse.graph.facts import Facts
    from fxfuse.graph.registry import Axes

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

    @property
    def _inputs_first(self) -> bool:
        """Whether what is stored is ``(in, out)``, and not ``(out, in)``."""
        return self._permutation is None

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        """Keep the permutation, and call the function with a bias where there is one now."""
        write = super()._write(linear_map, attributes)
        through = {} if self._permutation is None else {"weight": self._permutation}
        target = _WITH_BIAS.get(self.node.target) if "bias" in write.constants else None
        return Write(write.call, write.constants, through, target)

    def _as_linear(self, write: Write) -> Write:
        """Return the same edit, which lets the call be one of ``linear``, with the weight as that reads it."""
        weight = write.constants["weight"]
        if weight is not None and self._inputs_first:
            weight = weight.t().contiguous()
        target = _aten.linear.default if isinstance(self.node.target, OpOverload) else F.linear
        return Write(write.call, {**write.constants, "weight": weight}, {}, target)


class Product(MatrixProduct):
    """``input @ weight``, for an input of any number of axes; with a bias it becomes ``linear``."""

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        """Store the matrix as ``linear`` reads it, where there is a bias now."""
        write = super()._write(linear_map, attributes)
        return self._as_linear(write) if "bias" in write.constants else write


class Contraction(MatrixProduct):
    """A sum of products over the last axis of a value and one axis of a matrix; an edit makes it ``linear``."""

    def __init__(self, call: Call) -> None:
        """Give the operands the names that they have in ``linear``, as far as it is such a sum."""
        self._roles = self._find(call)
        named = {} if self._roles is None else {"input": self._roles.value, "weight": self._roles.matrix}
        super().__init__(replace(call, arguments={**call.arguments, **named}))

    def matches(self) -> bool:
        """Whether it is one."""
        return self._roles is not None

    @property
    def input(self) -> fx.Node:
        """The operand that is no constant."""
        value: fx.Node = self.call.arguments["input"]
        return value

    def _find(self, call: Call) -> Roles | None:
        raise NotImplementedError

    @property
    def _inputs_first(self) -> bool:
        roles = self._roles
        return roles is not None and roles.in_out == (self._permutation is None)

    def computed(self) -> dict[str, fx.Node]:
        """Return nothing: a weight that is computed for it becomes a constant only when something folds into it."""
        return {}

    def _write(self, linear_map: LinearMap, attributes: Mapping[str, Any]) -> Write:
        return self._as_linear(super()._write(linear_map, attributes))


class Roles(NamedTuple):
    """The operands of a sum of products.

    Attributes:
        value: the one that is no constant.
        matrix: the constant.
        in_out: whether the first axis of the matrix is summed, and not the second.
    """

    value: fx.Node
    matrix: fx.Node
    in_out: bool


def _roles_of(graph: Facts, first: object, second: object) -> tuple[fx.Node, fx.Node] | None:
    """Return a value and a constant among two operands, in this order."""
    nodes = [node for node in (first, second) if isinstance(node, fx.Node)]
    constant = [node for node in nodes if node in graph.constants]
    values = [node for node in nodes if node not in graph.constants]
    return (values[0], constant[0]) if len(values) == len(constant) == 1 else None


class Einsum(Contraction):
    """``einsum("bnc,cd->bnd", x, weight)``, whatever the letters are."""

    def _find(self, call: Call) -> Roles | None:
        terms, result = _terms(call.get("equation"))
        operands = call.get("operands")
        both = isinstance(operands, (list, tuple)) and len(operands) == len(terms) == _MATRIX
        found = _roles_of(call.graph, *operands) if both else None
        if found is None:
            return None
        value, matrix = (terms[operands.index(node)] for node in found)
        summed, others = value[-1:], value[:-1]
        made = matrix.replace(summed, "")
        axes = len(matrix) == _MATRIX and len(made) == 1 and len({*value, made}) == len(value) + 1 and summed.isalpha()
        return Roles(*found, matrix[0] == summed) if axes and result == others + made else None


def _terms(equation: object) -> tuple[list[str], str | None]:
    """Return the letters of the operands and of the result, with one sign for all axes that have no letters."""
    if not isinstance(equation, str) or "->" not in equation:
        return [], None
    operands, result = equation.replace(" ", "").replace("...", ".").split("->")
    return operands.split(","), result


def _axes_of_einsum(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    """Return how many letters the result has, and how many axes the dots stand for."""
    terms, result = _terms(arguments.get("equation"))
    operands = arguments.get("operands")
    if result is None or not isinstance(operands, (list, tuple)):
        return None
    dotted = [(axes(x), len(term) - 1) for x, term in zip(operands, terms, strict=False) if "." in term]
    known = [rank - letters for rank, letters in dotted if rank is not None]
    if "." not in result:
        return len(result)
    return len(result) - 1 + max(known) if known and len(known) == len(dotted) else None


class TensorDot(Contraction):
    """``tensordot(x, weight, dims)`` over the last axis of a value."""

    def _find(self, call: Call) -> Roles | None:
        found = _roles_of(call.graph, call.get("input"), call.get("weight"))
        dims, other = call.get("dims", 2), call.get("dims_other")
        pair = (dims, other) if other is not None else dims
        if found is None or found[0] is not call.get("input"):
            return None
        if pair == 1:
            return Roles(*found, in_out=True)
        listed = [list(axes) if isinstance(axes, (list, tuple)) else [axes] for axes in pair] if _is_pair(pair) else []
        if [len(axes) for axes in listed] != [1, 1]:
            return None
        (axis,), (of_matrix,) = listed
        rank = call.rank(found[0])
        last = axis == -1 or (rank is not None and rank.proven and axis == rank.axes - 1)
        return Roles(*found, in_out=of_matrix in (0, -2)) if last and of_matrix in (-2, -1, 0, 1) else None


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == _MATRIX


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
row("einsum", Einsum, "equation *operands", torch.einsum, rank=_axes_of_einsum, result="maybe view")
row("einsum", Einsum, "equation operands path", _aten.einsum.default, rank=_axes_of_einsum, result="maybe view")
row("tensordot", TensorDot, "input weight dims out", torch.tensordot, result="new")
row("tensordot", TensorDot, "input weight dims dims_other", _aten.tensordot.default, result="new")
# fmt: on
_WITH_BIAS: dict[object, Callable[..., Any]] = {torch.mm: torch.addmm, _aten.mm.default: _aten.addmm.default}
