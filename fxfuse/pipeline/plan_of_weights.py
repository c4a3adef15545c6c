"""The plan of the weights of a pass: what was recorded of it, between the model that was captured and the result."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.algebra.recording import Recording, Value, taken_number
from fxfuse.algebra.running_norms import TENSORS
from fxfuse.checkpoints.checks import Kind
from fxfuse.checkpoints.plan import Plan
from fxfuse.checkpoints.settings import settings_of
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from fxfuse.capture.captured import Capture

_LITERAL = "aten.lift_fresh.default"
"""The operation that torch begins with where code writes a tensor of numbers."""


def graph_constants(captured: Capture) -> list[Tensor]:
    """Return the tensors that graphs read by name: those that are no weights belong to the code.  Ask before a pass."""
    nodes = [(part, node) for part in captured.parts for node in part.graph_module.graph.nodes if node.op == "get_attr"]
    found = [fetch(part.graph_module, str(node.target)) for part, node in nodes]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


def plan_between(
    recording: Recording, captured: Capture, result: nn.Module | ExportedProgram, constants: list[Tensor]
) -> Plan | None:
    """Return how the weights of the result are computed; None for tensors without values, or of classes of their own.

    Args:
        recording: of the rules.
        captured: what they worked on.
        result: what came of it.
        constants: what ``graph_constants`` gave.
    """
    before, after = _tensors(captured.program or captured.model), _tensors(result)
    if not all(map(_is_ordinary, before.values())):
        return None
    names, outputs, given = _Names(before), dict[str, Value](), dict(recording.given)
    numbers: dict[int, Value] = {}
    for name, tensor in after.items():
        if id(tensor) not in numbers:
            number = taken_number(tensor)
            if number is None:
                number = Value(-len(outputs) - 1)  # no recording gives one below zero
                given[number] = tensor
            numbers[id(tensor)] = number
        outputs[name] = numbers[id(tensor)]
    found = {number: names.of(tensor) for number, tensor in given.items()}
    others = {number: given[number] for number, name in found.items() if name is None}
    ours = _of_code(others, recording, captured, constants) if others else {}
    return Plan(
        inputs={name: Kind(t.shape, t.stride(), t.dtype, t.device) for name, t in before.items()},
        tied=names.tied(),
        sources={number: name for number, name in found.items() if name is not None},
        constants=ours,
        steps=tuple(recording.steps),
        outputs=outputs,
        unknown=frozenset(others.keys() - ours.keys()),
        settings=settings_of(captured.paths) if captured.program is None else None,
    )


def _of_code(
    others: dict[Value, Tensor], recording: Recording, captured: Capture, constants: list[Tensor]
) -> dict[Value, Tensor]:
    """Return copies of the tensors that belong to the code."""
    buffers = captured.model.buffers() if captured.program is None else ()
    allowed = {_place(tensor) for tensor in (*constants, *buffers)}
    literal = {step.args[0] for step in recording.steps if step.name == _LITERAL}
    return {n: t.detach().clone() for n, t in others.items() if n in literal or _place(t) in allowed}


class _Names:
    """The first name of each tensor of a state dict."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._by_id = {id(tensor): name for name, tensor in reversed(tensors.items())}

    def of(self, tensor: Tensor) -> str | None:
        """Return the name of a tensor, which may be another object with the same memory."""
        return self._by_id.get(id(tensor)) or self._by_place.get(_place(tensor))

    @functools.cached_property
    def _by_place(self) -> dict[Any, str]:
        return {_place(tensor): name for name, tensor in reversed(self._tensors.items())}

    def tied(self) -> dict[str, str]:
        """Return the other names of tensors that have several, with the first one."""
        if len({tensor.data_ptr() for tensor in self._tensors.values()}) == len(self._tensors):
            return {}
        firsts = {name: self._by_place[_place(tensor)] for name, tensor in self._tensors.items()}
        return {name: first for name, first in firsts.items() if name != first}


def _place(tensor: Tensor) -> Any:
    """Return what tells a tensor from all others that live: its memory, and how it lies there."""
    if not _is_ordinary(tensor) or not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is one of torch's own with values, which lie in memory one by one."""
    plain = type(tensor) in TENSORS and tensor.layout is torch.strided
    return plain and not tensor.is_meta and not tensor.is_quantized


def _tensors(model: nn.Module | ExportedProgram) -> dict[str, Tensor]:
    state = model.state_dict(keep_vars=True) if isinstance(model, nn.Module) else model.state_dict
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
