"""Copies of modules that share the memory of the user's, and nothing else that could be changed."""

from __future__ import annotations

import collections
import functools
import inspect
import types
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

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


_REGISTRIES = frozenset(nn.Module().__dict__)


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module of the same class that shares every tensor, child and attribute, and can be changed."""
    # The class's own __new__ may do anything: GraphModule's makes a class, a singleton's returns the original.
    copied: nn.Module = object.__new__(type(module))
    for name in _slots(type(module)):
        if hasattr(module, name):
            object.__setattr__(copied, name, getattr(module, name))
    copied.__dict__ = {
        name: value.copy() if isinstance(value, dict) and (name in _REGISTRIES or name == "meta") else value
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
                copied.__dict__[name] = rebound(value, copies.of) if hooks else _remap(value, copies.of)
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


_DEPTH = 5  # of containers in containers; deeper ones, and cycles, are left as they are


def _remap(value: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    """Return an attribute that holds modules with the new ones in place of the old."""
    if issubclass(type(value), nn.Module):  # a weak proxy only says that it is one
        return copy_of(value)
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        new = copy_of(value.__self__)
        return value if new is value.__self__ else types.MethodType(value.__func__, new)
    if depth and isinstance(value, dict):
        items = [(_remap(k, copy_of, 0), _remap(v, copy_of, depth - 1)) for k, v in value.items()]
        if any(k is not old or v is not value[old] for (k, v), old in zip(items, value, strict=True)):
            value = value.copy()
            value.clear()
            value.update(items)
    elif depth and type(value) in (list, tuple):
        items = [_remap(item, copy_of, depth - 1) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    return value


def rebound(hooks: dict[int, Any], copy_of: Callable[[nn.Module], nn.Module]) -> dict[int, Any]:
    """Return hooks that know the new modules in place of the old, also by what is around them."""
    changed = {key: new for key, hook in hooks.items() if (new := _rebound(hook, copy_of)) is not hook}
    result = hooks.copy()
    result.update(changed)
    return result


def _rebound(hook: Any, copy_of: Callable[[nn.Module], nn.Module], depth: int = _DEPTH) -> Any:
    if isinstance(hook, weakref.ProxyTypes):  # what it stands for may be gone
        return hook
    if isinstance(hook, functools.partial):
        values = [hook.func, hook.args, hook.keywords]
        func, args, keywords = _rebound(hook.func, copy_of), *(_remap(v, copy_of) for v in values[1:])
        same = all(new is old for new, old in zip((func, args, keywords), values, strict=True))
        return hook if same else functools.partial(func, *args, **keywords)
    if not inspect.isfunction(hook) or not hook.__closure__ or not depth:
        return _remap(hook, copy_of)
    cells = [_rebound_cell(cell, copy_of, depth) for cell in hook.__closure__]
    if all(new is old for new, old in zip(cells, hook.__closure__, strict=True)):
        return hook
    result = types.FunctionType(hook.__code__, hook.__globals__, hook.__name__, hook.__defaults__, tuple(cells))
    result.__kwdefaults__ = hook.__kwdefaults__
    result.__module__ = hook.__module__
    result.__dict__.update(hook.__dict__)
    return result


def _rebound_cell(cell: types.CellType, copy_of: Callable[[nn.Module], nn.Module], depth: int) -> types.CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # it is empty
        return cell
    new = _rebound(value, copy_of, depth - 1)
    return cell if new is value else types.CellType(new)


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
