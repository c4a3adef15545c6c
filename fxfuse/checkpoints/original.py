"""The plan of a pass, and what it notes of the original model: its weights by their names, and its settings."""

from __future__ import annotations

import functools
import reprlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.algebra.running_norms import TENSORS
from fxfuse.algebra.tape import Tape, Value, taken_number
from fxfuse.checkpoints.checks import Kind
from fxfuse.checkpoints.plan import Plan
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from fxfuse.checkpoints.plan import Settings

_LITERAL = "aten.lift_fresh.default"
"""The operation that torch begins with where code writes a tensor of numbers."""

_SIMPLE = frozenset([bool, int, float, str, torch.dtype, torch.device])
_OTHERS = frozenset([*vars(nn.Module()), "momentum", "name_or_path", "_torchdynamo_wrapper_id"])
"""What every module has, what says how weights are made and where they come from, and a number by the compiler."""


def plan_between(
    tape: Tape,
    original: nn.Module | ExportedProgram,
    result: nn.Module | ExportedProgram,
    constants: list[Tensor],
) -> Plan | None:
    """Return how the weights of the result are computed; None for tensors without values, or of classes of their own.

    Args:
        tape: of the rules.
        original: what was fused.
        result: what came of it.
        constants: what the graphs read by name; what is no weight of the original belongs to its code.
    """
    before, after = _tensors(original), _tensors(result)
    if not all(map(_is_ordinary, before.values())):
        return None
    names, outputs, given = _Names(before), dict[str, Value](), dict(tape.given)
    numbers: dict[int, Value] = {}
    for name, tensor in after.items():
        if id(tensor) not in numbers:
            number = taken_number(tensor)
            if number is None:
                number = Value(-len(outputs) - 1)  # no tape gives one below zero
                given[number] = tensor
            numbers[id(tensor)] = number
        outputs[name] = numbers[id(tensor)]
    found = {number: names.of(tensor) for number, tensor in given.items()}
    others = {number: given[number] for number, name in found.items() if name is None}
    ours = _of_code(others, tape, original, constants) if others else {}
    return Plan(
        inputs={name: Kind(t.shape, t.stride(), t.dtype, t.device) for name, t in before.items()},
        tied=names.tied(),
        sources={number: name for number, name in found.items() if name is not None},
        constants=ours,
        steps=tuple(tape.steps),
        outputs=outputs,
        unknown=frozenset(others.keys() - ours.keys()),
        settings=_settings_of(original) if isinstance(original, nn.Module) else None,
    )


def _of_code(
    others: dict[Value, Tensor],
    tape: Tape,
    original: nn.Module | ExportedProgram,
    constants: list[Tensor],
) -> dict[Value, Tensor]:
    """Return copies of the tensors that belong to the code."""
    buffers = original.buffers() if isinstance(original, nn.Module) else ()
    allowed = {_place(tensor) for tensor in (*constants, *buffers)}
    literal = {step.args[0] for step in tape.steps if step.name == _LITERAL}
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


# -- settings: the classes of modules, and the numbers and words that they hold


def _settings_of(model: nn.Module) -> Settings:
    """Return what each module holds besides weights, by its path and the name of the attribute."""
    return {path: _own(module) for path, module in model.named_modules()}


def require_same(model: nn.Module, settings: Settings | None) -> None:
    """Refuse the weights of a model that computes something else with them than the one that was fused.

    Raises:
        FuseError: if a class, a number, a word, or a tensor that no state dict holds, is another.
    """
    if settings is None:
        raise FuseError(
            "An exported program does not tell the settings of its layers, so that a model cannot be compared with it; "
            "nothing was changed. Pass the state_dict() of the model that was exported, or fuse again."
        )
    now = _settings_of(model)
    for path in {**settings, **now}:
        before, after = settings.get(path, {}), now.get(path, {})
        for name in {**before, **after}:
            marked = name.startswith("_") and (name in before) != (name in after)  # by a loader or a compiler
            if not marked and not _equal(before.get(name), after.get(name)):
                what = f"{path}.{name}".strip(".")
                told = ", and was ".join(map(reprlib.repr, (after.get(name), before.get(name))))
                raise FuseError(
                    f"{what} is {told} when the model was fused; nothing was changed. Fuse the model again, or pass "
                    "its state_dict() if that makes no difference."
                )


def _own(module: nn.Module) -> dict[str, Any]:
    own: dict[str, Any] = {"class": f"{type(module).__module__}.{type(module).__qualname__}"}
    for name, value in vars(module).items():
        if name not in _OTHERS:
            found = value if type(value) in _SIMPLE else _setting(value)
            if found is not None:
                own[name] = found
    for name in module._non_persistent_buffers_set:
        own[name] = _setting(module._buffers.get(name))
    return own


def _setting(value: Any) -> Any:
    """Return a value that can be compared and does not change; None for one that cannot."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if all(type(one) in _SIMPLE or one is None for one in value) else None
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (bool, int, float, str)):  # classes of their own: enumerations, NumPy's numbers
        return value
    # A function; a dictionary may raise for what it does not have.
    name = None if isinstance(value, dict) else getattr(value, "__qualname__", None)
    return None if name is None else f"{value.__module__}.{name}"


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and bool(one == other)
    same = one.shape == other.shape and one.is_meta == other.is_meta
    return same and (one.is_meta or torch.equal(one, other.to(one)))
