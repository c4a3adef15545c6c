"""The plan of a pass: what was recorded of it, between the weights before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.algebra.recording import Recording, Value, taken_number
from fxfuse.checkpoints.kind import Kind
from fxfuse.checkpoints.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def plan_of(
    recording: Recording,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    made: Iterable[Tensor],
    constants: Iterable[Tensor],
) -> Plan | None:
    """Return how a state dict is computed from another one, None for tensors without values or of classes of their own.

    Args:
        recording: what was done in between.
        before: the state dict of the original.
        after: that of the fused model.
        made: the tensors of the fused model.
        constants: tensors that belong to the code of the original, and are in no state dict.
    """
    numbers = {_place(t): number for t in made if (number := taken_number(t)) is not None}
    tensors = {name: tensor for name, tensor in before.items() if isinstance(tensor, Tensor)}
    if not all(map(_is_ordinary, tensors.values())):
        return None
    outputs: dict[str, Value] = {}
    given = dict(recording.given)
    for name, tensor in after.items():
        if isinstance(tensor, Tensor):
            number = numbers.setdefault(_place(tensor), Value(-len(numbers) - 1))  # no recording gives one below zero
            outputs[name] = number
            if number < 0:
                given[number] = tensor
    names: dict[Any, str] = {}
    tied = {name: first for name, t in tensors.items() if (first := names.setdefault(_place(t), name)) != name}
    sources = {number: names[_place(t)] for number, t in given.items() if _place(t) in names}
    literal = {step.args[0] for step in recording.steps if step.name == _LITERAL}
    allowed = {_place(tensor) for tensor in constants}
    others = {n: t for n, t in given.items() if n not in sources and (n in literal or _place(t) in allowed)}
    return Plan(
        inputs={name: Kind.of(tensor) for name, tensor in tensors.items()},
        tied=tied,
        sources=sources,
        constants={number: tensor.detach().clone() for number, tensor in others.items()},
        steps=tuple(recording.steps),
        outputs=outputs,
        unknown=frozenset(given.keys() - sources.keys() - others.keys()),
    )


_LITERAL = "aten.lift_fresh.default"
"""The operation that torch begins with where code writes a tensor of numbers."""


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is one of torch's own with values, which lie in memory one by one."""
    plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer) and tensor.layout is torch.strided
    return plain and not tensor.is_meta and not tensor.is_quantized


def _place(tensor: Tensor) -> Any:
    """Return what tells a tensor from all others that live: its memory, and how it lies there."""
    if not _is_ordinary(tensor):
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()
