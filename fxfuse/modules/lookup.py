"""Look things up in modules: attributes, paths, tensors, hooks and kinds; and copy one that shares its tensors."""

from __future__ import annotations

import types
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.derived_class import Derived
from fxfuse.modules.origin import home_of, is_torchs_layer

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
    for place in (own, *(own.get(name, {}) for name in ("_parameters", "_buffers", "_modules"))):
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


def ancestors(modules: Iterable[nn.Module]) -> dict[nn.Module, frozenset[nn.Module]]:
    """Return each module with all modules that hold it, itself among them.

    Args:
        modules: all modules of a model, parents before their children, as ``paths_below`` gives them.
    """
    parents: dict[nn.Module, list[nn.Module]] = {}
    for module in modules:
        parents.setdefault(module, [])
        for child in module._modules.values():
            if child is not None:
                parents.setdefault(child, []).append(module)
    found: dict[nn.Module, frozenset[nn.Module]] = {}
    for module in parents:
        above, pending = {module}, [module]
        while pending:
            for parent in parents[pending.pop()]:
                if parent not in above:
                    above |= found.get(parent, {parent})
                    pending += [] if parent in found else [parent]
        found[module] = frozenset(above)
    return found


def splitting(fold: Collection[nn.Module], above: Mapping[nn.Module, frozenset[nn.Module]]) -> frozenset[nn.Module]:
    """Return the modules that hold a part of a fold, and not all of it.

    Args:
        fold: the modules that a fold changes.
        above: what ``ancestors`` gives.
    """
    holders = [above.get(module, frozenset({module})) for module in fold]
    return frozenset[nn.Module]().union(*holders) - frozenset.intersection(*holders)


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
    for name in slots_of(type(module)):
        if hasattr(module, name):
            object.__setattr__(copied, name, getattr(module, name))
    copied.__dict__ = {
        name: value.copy() if isinstance(value, dict) and (name in REGISTRIES or name == "meta") else value
        for name, value in module.__dict__.items()
        if name != "_compiled_call_impl"  # bound to the original, which it would run
    }
    return copied


# Each GraphModule is a class of its own, which nothing here may keep alive.
_slots_of: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()


def slots_of(cls: type) -> tuple[str, ...]:
    """Return the names of the attributes that instances of a class have outside of their dictionary."""
    if cls not in _slots_of:
        found = [vars(base).get("__slots__", ()) for base in cls.__mro__]
        names = [name for slots in found for name in ((slots,) if isinstance(slots, str) else slots)]
        _slots_of[cls] = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
    return _slots_of[cls]


def owner_at(root: nn.Module, path: str) -> nn.Module:
    """Return the module at a path, or the root: a graph may tell of a module that it has no longer."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        return root


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The attributes in which a module has its hooks."""


# Torch changes these dictionaries, and never exchanges them.
_GLOBAL_HOOKS = [getattr(nn.modules.module, "_global" + name) for name in HOOKS]


def is_hooked(module: nn.Module) -> bool:
    """Whether something else looks at the inputs or outputs of the module."""
    return any(_GLOBAL_HOOKS) or (any(map(module.__dict__.get, HOOKS)) and not computes_weights(module))


def fetch(root: torch.nn.Module, target: str) -> Any:
    """Return the attribute at a dotted path."""
    value: Any = root
    for name in target.split("."):
        value = attribute(value, name)
    return value


def holds(root: torch.nn.Module, target: str, value: object) -> bool:
    """Whether there is this very object at a dotted path."""
    try:
        return fetch(root, target) is value
    except AttributeError:  # there is nothing, or nothing any more
        return False


def is_norm(module: nn.Module) -> bool:
    """Whether a module of the user's normalises by statistics that it keeps; a GraphModule's holders do nothing."""
    opaque = type(module) is nn.Module or isinstance(module, torch.jit.ScriptModule)
    return not opaque and keeps_statistics(module)


def is_quantized(module: nn.Module | None) -> bool:
    """Whether a module is one of torch's quantized layers; a FloatFunctional lives with these, and has floats."""
    if module is None or "quantized" not in home_of(module).split("."):
        return False
    return any(look_up(module, name) is not None for name in ("scale", "_packed_params"))


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module normalises by statistics that it keeps, whatever its class is called."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or all(
        look_up(module, name) is not None for name in ("running_mean", "running_var")
    )


def is_module(value: Any) -> bool:
    """Whether a value is a module itself, and not one that only says so, as a weak proxy does."""
    return issubclass(type(value), nn.Module)


def behind_proxy(value: Any) -> nn.Module | None:
    """Return the module that a weak proxy stands for, None for anything else and where it is gone."""
    try:
        found = (
            getattr(getattr(value, "modules", None), "__self__", None) if type(value) in weakref.ProxyTypes else None
        )
    except ReferenceError:
        return None
    return found if is_module(found) else None


def contents_of(cell: types.CellType) -> Any:
    """Return what a variable around a function has, None if it has nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def is_layer_of_torch(module: nn.Module) -> bool:
    """Whether a module is one of torch's own, with its forward and weights, and no container of others."""
    other = isinstance(module, (*CONTAINERS, Derived)) or computes_weights(module)
    return is_torchs_layer(module) and not other
