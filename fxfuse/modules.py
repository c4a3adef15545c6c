"""Copies of modules that share the memory of the user's, and nothing else that could be changed."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module of the same class that shares every tensor, child and attribute, and can be changed."""
    # The class's own __new__ may do anything: GraphModule's makes a class, a singleton's returns the original.
    copied: nn.Module = object.__new__(type(module))
    for name in (n for cls in type(module).__mro__ for n in _slots(cls) if hasattr(module, n)):
        object.__setattr__(copied, name, getattr(module, name))
    copied.__dict__ = {
        name: value.copy() if isinstance(value, dict) and (name.startswith("_") or name == "meta") else value
        for name, value in module.__dict__.items()
    }
    return copied


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return tuple(n for n in ((slots,) if isinstance(slots, str) else slots) if n not in ("__dict__", "__weakref__"))


def copies_of(model: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> dict[nn.Module, nn.Module]:
    """Return a copy of every module below a model, some replaced by others, put together as the originals are.

    So ``train()`` or a new child on one side does not reach the other.  Tensors are shared.
    """
    copies = {module: replaced.get(module) or _copy(module) for module in model.modules()}
    for original, copied in copies.items():
        if copied is not original:
            for name, value in copied.__dict__.items():
                copied.__dict__[name] = _remap(value, copies)
    return copies


def _copy(module: nn.Module) -> nn.Module:
    # A scripted module lives in C++, where no attribute can be exchanged.
    return module if isinstance(module, torch.jit.ScriptModule) else shallow_copy(module)


_DEPTH = 5  # of containers in containers; deeper ones, and cycles, are left as they are


def _remap(value: Any, copies: Mapping[nn.Module, nn.Module], depth: int = _DEPTH) -> Any:
    """Return an attribute that holds modules with the new ones in place of the old."""
    if isinstance(value, nn.Module):
        return copies.get(value, value)
    if isinstance(value, types.MethodType):
        new = copies.get(value.__self__) if isinstance(value.__self__, nn.Module) else None
        return value if new is None else types.MethodType(value.__func__, new)
    if not depth:
        return value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        items = [_remap(item, copies, depth - 1) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    if isinstance(value, dict):
        changed = {k: new for k, v in value.items() if (new := _remap(v, copies, depth - 1)) is not v}
        if changed:
            value = value.copy()
            value.update(changed)
    return value


class SeparateOnConversion:
    """Stands for ``_apply`` of a model that shares Parameter objects with another one.

    ``half()`` and ``to()`` go through ``_apply``, and exchange the memory of each Parameter object.  So the first of
    them gives the model objects of its own; until then both models read the same ones.
    """

    def __init__(self, model: nn.Module) -> None:
        """Guard ``model``."""
        self.model = model

    def __call__(self, fn: Any, recurse: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - torch's signature
        """Separate the model, then do what was asked for."""
        self.model.__dict__.pop("_apply", None)
        renew_parameters(self.model)
        return self.model._apply(fn, recurse)


def renew_parameters(model: nn.Module) -> None:
    """Give a model Parameter objects of its own, which share their memory with the former ones."""
    renewed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, parameter in module._parameters.items():
            if type(parameter) is not nn.Parameter:
                continue  # None, or a class that may need more than its data
            if id(parameter) not in renewed:
                new = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
                new.__dict__.update(parameter.__dict__)
                renewed[id(parameter)] = new
            module._parameters[name] = renewed[id(parameter)]
