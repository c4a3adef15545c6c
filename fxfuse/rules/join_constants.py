"""Products and sums with constants that follow each other are one product and one sum."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from fxfuse.algebra.linear_map import are_finite
from fxfuse.graph.plan import Plan, Write
from fxfuse.graph.ranks import recorded_value
from fxfuse.operators.pointwise import Add, Divide, Multiply, Negate, ReverseSubtract, Subtract
from fxfuse.operators.roles import AffineSource
from fxfuse.rules.walk import origins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fxfuse.graph.graph import Graph

_KINDS = (Multiply, Divide, Negate, Add, Subtract, ReverseSubtract)


def join_constants(graph: Graph, node: fx.Node) -> Plan | None:
    """``(x * a + b) * c - d`` becomes ``x * (a * c) + (b * c - d)``, where no layer takes the constants in."""
    chain = _chain(graph, node)
    constants = _composed(chain) if len(chain) > 1 and not graph.keeps_code else {}
    if not constants or len(constants) >= len(chain) or not _alike(chain):
        return None
    for view in chain:
        graph.require_changeable(view.node)
    writes = tuple(_write(graph, chain, view, *found) for view, found in zip(chain, constants.items(), strict=False))
    return Plan(writes, bypass=tuple((view.node, view.input) for view in chain[: len(writes) - 1 : -1]))


def _chain(graph: Graph, node: fx.Node) -> list[AffineSource]:
    """Return the operations up to a node, of which each alone reads the one before, and all give floats."""
    found: list[AffineSource] = []
    while graph.plays(node, AffineSource) and node not in graph.dead and (not found or len(node.users) == 1):
        view = graph.view(node)
        if not isinstance(view, _KINDS) or graph.mutated(node) or "alpha" in view.call.arguments:
            break
        found.insert(0, view)
        node = view.input
    while found and not _gives_floats(found[0]):  # whole numbers may overflow on the way
        del found[0]
    return found


def _gives_floats(view: AffineSource) -> bool:
    """Whether an operation gives floats, whatever it is given."""
    before = recorded_value(view.input)
    numbers = (view.call.get("input"), view.call.get("other"))
    promotes = isinstance(view, Divide) or bool(view.tensors) or any(isinstance(number, float) for number in numbers)
    return promotes if before is None else before.is_floating_point()


def _tensors(chain: Sequence[AffineSource]) -> list[Tensor]:
    """Return the constants that are tensors."""
    return [tensor for view in chain for tensor in view.tensors]


def _composed(chain: Sequence[AffineSource]) -> dict[Any, Tensor | float]:
    """Return the one product and the one sum that do the same, with their constants; nothing where that is unknown."""
    scale, shift = None, None
    for view in chain:
        affine = view.affine()
        if _scales(view):
            scale = affine.scale if scale is None else affine.scale * scale
            shift = None if shift is None else affine.scale * shift
        if affine.shifts:
            shift = affine.shift if shift is None else shift + affine.shift
    found = {operator.mul: scale, operator.add: shift}
    stored = {function: _stored(chain, value) for function, value in found.items() if value is not None}
    known = {function: value for function, value in stored.items() if value is not None}
    return known if len(known) == len(stored) else {}


def _scales(view: AffineSource) -> bool:
    """Whether an operation may have another scale than one, by what it does: values may change."""
    if not isinstance(view, (Add, Subtract)):
        return True
    return isinstance(view, Subtract) and view.call.get("other") is view.input


def _stored(chain: Sequence[AffineSource], value: Tensor) -> Tensor | float | None:
    """Return a constant as the code would have it, None if it is not finite, or larger than those that there are."""
    tensors = _tensors(chain)
    if value.ndim:
        rounded = value.to(tensors[0].dtype)
        return rounded if are_finite(rounded) and value.numel() <= max(t.numel() for t in tensors) else None
    return float(value) if are_finite(value) else None


def _alike(chain: Sequence[AffineSource]) -> bool:
    """Whether all values are of one shape and dtype, as far as the graph says, and all constants of one dtype."""
    tensors = _tensors(chain)
    one = len({(tensor.dtype, tensor.device) for tensor in tensors}) <= 1
    floating = all(tensor.is_floating_point() and tensor.ndim for tensor in tensors)
    values = [value for view in chain if (value := recorded_value(view.node)) is not None]
    return one and floating and len({(value.dtype, str(value.shape)) for value in values}) <= 1


def _write(graph: Graph, chain: Sequence[AffineSource], view: AffineSource, function: Any, constant: Any) -> Write:
    """Return the edit by which a call multiplies its value, or adds to it, in place of what it does now."""
    if isinstance(view.node.target, OpOverload):
        function = torch.ops.aten.mul.Tensor if function is operator.mul else torch.ops.aten.add.Tensor
    operand = {"input" if view.call.get("other") is view.input else "other": constant}
    return Write(
        view.call,
        operand if isinstance(constant, Tensor) else {},
        target=function,
        attributes={} if isinstance(constant, Tensor) else operand,
        trains=any(tensor.requires_grad for tensor in _tensors(chain)),
        sources=origins(graph, chain),
    )
