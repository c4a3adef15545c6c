"""What a model is besides its weights: the classes of its modules, and the numbers and words that they hold."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    Settings = dict[str, dict[str, Any]]

_SIMPLE = frozenset([bool, int, float, str, torch.dtype, torch.device])
_OTHERS = frozenset([*vars(nn.Module()), "momentum", "name_or_path", "_torchdynamo_wrapper_id"])
"""What every module has, what says how weights are made and where they come from, and a number by the compiler."""


def settings_of(paths: Mapping[nn.Module, str]) -> Settings:
    """Return what each module holds besides weights, by its path and the name of the attribute."""
    return {path: _own(module) for module, path in paths.items()}


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
    now = settings_of({module: path for path, module in model.named_modules()})
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
