"""Whether a model is still the one that was lowered: the same values of tensors, modules, settings and hooks."""

from __future__ import annotations

import ctypes
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._C._dynamo.guards import dict_version
from torch.nn.modules import module as _torchs
from torch.utils.hooks import RemovableHandle

from fxfuse.modules.lookup import REGISTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_INTEGERS = {2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}


class Watch:
    """Remembers a model as it was when its kernels were made.

    It is asked before each call, when little of it lies in a cache: what counts is how many objects are touched.  While
    no dictionary of the model was written into, and no hook made anywhere, nothing in those dictionaries is looked at.
    """

    def __init__(
        self,
        root: nn.Module,
        copied: Iterable[Tensor],
        held: Iterable[Tensor],
        called: Mapping[nn.Module, Collection[str] | None],
    ) -> None:
        """Look at the model.

        Args:
            root: the model.
            copied: tensors of which the kernels have copies.
            held: tensors that the kernels and the forward read themselves.
            called: the modules that the forward calls or stands for, with the names of their settings; None if one is
                called as it is, whatever it does.
        """
        modules = [m for m in root.modules() if not isinstance(m, torch.jit.ScriptModule)]  # which live in C++
        traced = () if isinstance(root, fx.GraphModule) else modules  # whose attributes their own forwards read
        names = {**{module: _own(module) for module in traced}, **called}
        unknown = {inner for module, found in called.items() if found is None for inner in module.modules()}
        self._modules = [module for module in modules if module in names and module not in unknown]
        self._values = [module.__dict__ for module in self._modules]
        self._getters = [_getter(module, names[module] or ()) for module in self._modules]
        self._added_to = [module.__dict__ for module in self._modules if module is not root]
        self._root = root if isinstance(root, fx.GraphModule) else nn.Identity()  # a graph may be compiled anew
        self.hooked = False
        """A module inside has hooks, or all modules have, which kernels would pass by."""

        wanted, kept = set(map(id, copied)), set(map(id, held))
        tensors_of: list[dict[str, Any]] = [each for m in modules for each in (m._parameters, m._buffers)]
        read = {id(each) for module in self._modules for each in (module._parameters, module._buffers) if each}
        self._registries: list[dict[str, Any]] = [module._modules for module in modules if module._modules]
        self._registries += [r for r in tensors_of if id(r) in read or any(id(t) in wanted | kept for t in r.values())]
        self._places = [(m.__dict__, n) for m in modules for n, t in m.__dict__.items() if id(t) in kept]
        self._objects = self._look()  # these stay alive, so that no other object gets their place
        self._tensors = [one for one in self._objects if id(one) in wanted]
        self._counted = not any(tensor.is_inference() for tensor in self._tensors)
        self._cells = [cell for tensor in self._tensors for cell in _cell(tensor)]
        self._memory, self._sampled = self._look_at_memory(), [cell.value for cell in self._cells]
        self._settings, self._types = self._look_at_settings(), list(map(type, self._modules))
        self._forward = type(self._root).forward
        # Writes into these leave the dictionaries that hold them as they are.
        self._open = [each for values in self._settings for each in values[2:] if type(each) in (list, dict, set)]
        self._open_then = [each.copy() for each in self._open]
        dicts = [*self._values, *self._registries, *(values for values, _ in self._places)]
        self._dicts = list({id(each): each for each in dicts}.values())
        self._writes: list[int] = []

    def unchanged(self) -> bool:
        """Whether it is still the same."""
        try:
            writes = [RemovableHandle.next_id, *map(dict_version, self._dicts)]
            if writes != self._writes or self.hooked:
                now = self._look()
                same = len(now) == len(self._objects) and all(map(operator.is_, now, self._objects))
                if not same or self._look_at_settings() != self._settings:
                    return False
                self._writes = writes
            same = list(map(type, self._modules)) == self._types and self._open == self._open_then
            same = same and type(self._root).forward is self._forward and self._look_at_memory() == self._memory
        except (KeyError, RuntimeError, TypeError, ValueError):  # gone, or a value that cannot be compared
            return False
        # What is written through ``.data`` is counted nowhere; the memory is still there, since it is in its place.
        return same and [cell.value for cell in self._cells] == self._sampled

    def _look(self) -> list[Any]:
        found = [values[name] for values, name in self._places]
        for registry in self._registries:
            found += registry.values()
        return found

    def _look_at_memory(self) -> list[int]:
        versions = [tensor._version for tensor in self._tensors] if self._counted else []
        return versions + [tensor.data_ptr() for tensor in self._tensors]

    def _look_at_settings(self) -> list[tuple[Any, ...]]:
        settings = [get(values) for get, values in zip(self._getters, self._values, strict=True)]
        hooks = any(before or behind for before, behind, *_ in settings)
        self.hooked = bool(hooks or _torchs._global_forward_hooks or _torchs._global_forward_pre_hooks)
        return [*settings, tuple(map(len, self._added_to))]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _own(module: nn.Module) -> list[str]:
    """Return the names of the attributes of a module without those that torch and this library have there."""
    torchs = REGISTRIES - {"training"}
    return [name for name in module.__dict__ if name not in torchs and not name.startswith("_fxfuse")]


def _getter(module: nn.Module, names: Collection[str]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return what reads the hooks of a module, and its settings."""
    return operator.itemgetter(*_HOOKS, *(name for name in names if name in module.__dict__))


def _cell(tensor: Tensor) -> list[Any]:
    """Return an element of a tensor as it lies in memory, if possible not zero; none where that is not at hand."""
    kind = _INTEGERS.get(tensor.element_size())
    if tensor.device.type != "cpu" or kind is None or not tensor.numel():
        return []
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    places = (last // 2, 0, last) if tensor.is_contiguous() else (0, last)
    cells = [kind.from_address(tensor.data_ptr() + place * tensor.element_size()) for place in places]
    return [next((cell for cell in cells if cell.value), cells[0])]
