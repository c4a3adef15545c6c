"""New weights of the original, folded into a fused model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from fxfuse.checkpoints.original import require_same
from fxfuse.report.errors import FuseError, sentence
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from fxfuse.checkpoints.plan import Plan

M = TypeVar("M", nn.Module, ExportedProgram)


def refold(fused: M, weights: Mapping[str, Tensor] | nn.Module) -> M:
    """Fold other weights of the original model into a fused one, in place, as fusing again would, bit for bit.

    Either all of it happens, or nothing.  What shared tensors with the fused model before (the original, a lowered
    model) does not change; afterwards it shares those that are not folded with ``weights``, as ``fx_fuse`` does.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse, refold
        >>> def model() -> torch.nn.Module:
        ...     return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> fused, retrained = fx_fuse(model()), model()
        >>> image = torch.randn(1, 3, 8, 8)
        >>> torch.equal(refold(fused, retrained)(image), fx_fuse(retrained)(image))
        True

    Args:
        fused: what ``fx_fuse`` or ``lower`` returned.
        weights: a state dict with the names of the original model, or a model of its classes and settings (eps,
            stride and so on).  A model in training mode gives its weights, and is fused as the original was.

    Returns:
        The fused model.

    Raises:
        FuseError: if names, shapes, dtypes or settings are others, or values for which the model would fold in another
            way; nothing is changed then.
    """
    plan, state = _plan(fused), _state(weights)
    plan.require_names(state)
    if isinstance(weights, nn.Module):
        require_same(weights, plan.settings)
    made, before = plan.apply(state), _state_of(fused)
    current = {name: tensor for name, tensor in before.items() if isinstance(tensor, Tensor)}
    if made.keys() != current.keys() or any(made[name].shape != tensor.shape for name, tensor in current.items()):
        raise FuseError(
            f"{type(fused).__name__} is not as fx_fuse returned it: its tensors have other names or shapes; nothing "
            "was changed. Refold what fx_fuse returned, and change it afterwards."
        )
    _put(fused, before, _placed(made, current))
    return fused


def _state_of(fused: nn.Module | ExportedProgram) -> dict[str, Any]:
    return fused.state_dict(keep_vars=True) if isinstance(fused, nn.Module) else fused.state_dict


def _put(fused: nn.Module | ExportedProgram, before: dict[str, Any], new: dict[str, Tensor]) -> None:
    """Let a model or a program hold other tensors, all or none."""
    if isinstance(fused, ExportedProgram):
        before.update(new)
        return
    after: Any = OrderedDict(before)
    after.update(new)
    after._metadata = getattr(before, "_metadata", None)  # versions, which some models read
    try:
        fused.load_state_dict(after, assign=True)
    except Exception as error:  # hooks of the user's can do anything
        fused.load_state_dict(before, assign=True)
        name = type(fused).__name__
        raise FuseError(f"{name} did not take its new weights ({sentence(error)}); nothing was changed.") from error


def _plan(fused: Any) -> Plan:
    plan: Plan | None = Report.of(fused).plan
    if plan is None:
        raise FuseError(
            f"{type(fused).__name__} carries no plan of its weights, which have no values or classes of their own, or "
            "are used by an object of the original too; nothing was changed. Fuse the original with the new weights."
        )
    return plan


def _state(weights: Any) -> Mapping[str, Tensor]:
    if isinstance(weights, torch.jit.ScriptModule):
        raise FuseError(
            "A scripted module has names of its own; nothing was changed. Pass the state dict of the original model."
        )
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    if not isinstance(weights, Mapping):
        raise FuseError(
            f"refold takes a state dict or a model of the original architecture, and got {type(weights).__name__}; "
            "nothing was changed. Read a file with torch.load(file, weights_only=True) or safetensors."
        )
    return {name: value for name, value in weights.items() if not name.endswith(_EXTRA)}


_EXTRA = "_extra_state"  # what a module stores besides tensors


def _placed(made: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return new tensors where the present ones are, since a model may have been moved or converted; tied ones tied."""
    found: dict[int, Tensor] = {}
    for name, new in made.items():
        like = current[name]
        if id(new) not in found:
            moved = new.to(like.device, like.dtype)
            parameter = isinstance(like, nn.Parameter)
            found[id(new)] = nn.Parameter(moved, requires_grad=like.requires_grad) if parameter else moved
    return {name: found[id(new)] for name, new in made.items()}
