"""Copies of modules that share the memory of the user's, and nothing else that could be changed."""

from __future__ import annotations

import collections
import types
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxfuse.exchange import exchanged, rebound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# The types of most attributes, which hold nothing that could be changed; looked up by type, since there are many.
ATOMS = frozenset([
    *(int, float, bool, str, bytes, type(None), types.FunctionType, types.BuiltinFunctionType),
    *(torch.Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device),
])  # fmt: skip


def attribute(source: Any, name: str) -> Any:
    """Return an attribute, mostly a child, of which a module's own look-up takes much longer."""
    is_child = isinstance(source, nn.Module) and name in source._modules
    return source._modules[name] if is_child else getattr(source, name)


def look_up(module: nn.Module, name: str, default: Any = None) -> Any:
    """Return an attribute or its default, without the error that torch makes, and nobody reads, where there is none."""
    own = module.__dict__
    for place in (own, own["_parameters"], own["_buffers"], own["_modules"]):
        if name in place:
            return place[name]
    cls = type(module)
    computed = hasattr(cls, name) or cls.__getattr__ is not nn.Module.__getattr__
    return getattr(module, name, default) if computed else default


def paths_below(root: nn.Module) -> dict[nn.Module, str]:
    """Return every module below a root with its first path, in the order of ``named_modules()``, and faster."""
    paths: dict[nn.Module, str] = {}
    pending: list[tuple[str, nn.Module]] = [("", root)]
    while pending:
        path, module = pending.pop()
        if module in paths:
            continue
        paths[module] = path
        if module._modules:  # most modules are layers, without any
            prefix = f"{path}." if path else ""
            children = [(prefix + name, child) for name, child in module._modules.items() if child is not None]
            pending += reversed(children)
    return paths


def tensor_paths(root: nn.Module) -> list[tuple[torch.Tensor, str]]:
    """Return every parameter and buffer below a root once, with its first path."""
    found: dict[int, tuple[torch.Tensor, str]] = {}
    for module, path in paths_below(root).items():
        prefix = f"{path}." if path else ""
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (tensor, prefix + name))
    return list(found.values())


REGISTRIES = frozenset(nn.Module().__dict__)
"""The attributes that torch gives every module."""


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module of the same class that shares every tensor, child and attribute, and can be changed."""
    # The class's own __new__ may do anything: GraphModule's makes a class, a singleton's returns the original.
    copied: nn.Module = object.__new__(type(module))
    for name in _slots(type(module)):
        if hasattr(module, name):
            object.__setattr__(copied, name, getattr(module, name))
    copied.__dict__ = {
        name: value.copy() if isinstance(value, dict) and (name in REGISTRIES or name == "meta") else value
        for name, value in module.__dict__.items()
    }
    return copied


# Each GraphModule is a class of its own, which nothing here may keep alive.
_slots_of: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _slots(cls: type) -> tuple[str, ...]:
    if cls not in _slots_of:
        found = [vars(base).get("__slots__", ()) for base in cls.__mro__]
        names = [name for slots in found for name in ((slots,) if isinstance(slots, str) else slots)]
        _slots_of[cls] = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
    return _slots_of[cls]


def copies_of(
    model: nn.Module, replaced: Mapping[nn.Module, nn.Module], roots: Iterable[nn.Module] | None = None
) -> dict[nn.Module, nn.Module]:
    """Return a copy of every module below a model, some replaced by others, put together as the originals are.

    So ``train()`` or a new child on one side does not reach the other.  Tensors are shared.

    Args:
        model: the model; modules that are not part of it are never copied.
        replaced: the new versions of some.
        roots: the modules to copy, with all that they hold; by default the model.
    """
    copies = _Copies(paths_below(model), replaced)
    for root in [model] if roots is None else roots:
        copies.of(root)
    while copies.pending:
        copied = copies.pending.pop()
        for name, value in copied.__dict__.items():
            # Most are registries of hooks without any.
            empty = type(value) in (dict, collections.OrderedDict) and not value
            if not empty and type(value) not in ATOMS and name not in ("_parameters", "_buffers"):
                hooks = name in ("_forward_hooks", "_forward_pre_hooks")
                copied.__dict__[name] = rebound(value, copies.of) if hooks else exchanged(value, copies.of)
    return copies.made


class _Copies:
    """The copies that were made, and those of which the attributes are still to be looked at."""

    def __init__(self, members: Collection[nn.Module], replaced: Mapping[nn.Module, nn.Module]) -> None:
        self.members = members
        self.replaced = replaced
        self.made: dict[nn.Module, nn.Module] = {}
        self.pending: list[nn.Module] = []

    def of(self, module: nn.Module) -> nn.Module:
        """Return the copy of a module of the model, and any other module as it is."""
        if module not in self.members:
            return module
        if module not in self.made:
            self.made[module] = self.replaced[module] if module in self.replaced else _copy(module)
            if self.made[module] is not module:
                self.pending.append(self.made[module])
        return self.made[module]


def _copy(module: nn.Module) -> nn.Module:
    # A scripted module lives in C++, where no attribute can be exchanged.
    return module if isinstance(module, torch.jit.ScriptModule) else shallow_copy(module)


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


def owner_at(root: nn.Module, path: str) -> nn.Module:
    """Return the module at a path, or the root: a graph may tell of a module that it has no longer."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        return root
