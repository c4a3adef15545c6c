"""Whether a model is still the one that was lowered: the same values of tensors, modules, settings and hooks."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torchs

from fxfuse.modules.lookup import HOOKS, REGISTRIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_INTEGERS = {2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}


class Watch:
    """Remembers a model as it was when its kernels were made; to ask costs less than a microsecond for each layer."""

    def __init__(
        self, root: nn.Module, tensors: Iterable[Tensor], bound: Iterable[Tensor], called: Collection[nn.Module] = ()
    ) -> None:
        """Look at the model.

        Args:
            root: the model.
            tensors: the kernels hold copies of these.
            bound: the forward holds these themselves.
            called: modules of which nothing is known, which are called whatever they have become.
        """
        wanted, held = {id(tensor) for tensor in tensors}, {id(tensor) for tensor in bound}
        modules = [m for m in root.modules() if not isinstance(m, torch.jit.ScriptModule)]  # which live in C++
        registries: list[dict[str, Any]] = [each for m in modules for each in (m._parameters, m._buffers)]
        self._slots = [(registry, n) for registry in registries for n, t in registry.items() if id(t) in wanted]
        self._places: list[tuple[dict[str, Any], str]] = [(m._modules, name) for m in modules for name in m._modules]
        registries += [module.__dict__ for module in modules]
        self._places += [(registry, n) for registry in registries for n, t in registry.items() if id(t) in held]
        self._held = [registry[name] for registry, name in self._places]  # so that no other object gets its id
        self._hooks: list[Any] = [getattr(_torchs, f"_global{name}") for name in HOOKS]
        self._hooks += [module.__dict__[name] for module in modules if module is not root for name in HOOKS]
        unknown = {root, *(inner for module in called for inner in module.modules())}
        self._modules = [module for module in modules if module not in unknown]
        self._settings, self._root = [module.__dict__ for module in self._modules], root
        self._before = [*map(_kept, self._settings), _kept(_own(root))]
        found = [registry[name] for registry, name in self._slots]
        self._counted = not any(tensor.is_inference() for tensor in found)
        self._cells = [cell for tensor in found for cell in _cells(tensor)]
        self._state, self._sampled = self._look(), [cell.value for cell in self._cells]

    def unchanged(self) -> bool:
        """Whether it is still the same."""
        try:
            # Registries and hooks are the very same objects, which Python sees at once.
            same = self._look() == self._state and [*self._settings, _own(self._root)] == self._before
        except (AttributeError, KeyError, RuntimeError, ValueError):  # gone, or a value that cannot be compared
            return False
        # What is written through ``.data`` is counted nowhere; the memory is still there, since it is in its place.
        return same and [cell.value for cell in self._cells] == self._sampled

    @property
    def hooked(self) -> bool:
        """Whether a module inside has hooks, or all modules have, which kernels would pass by."""
        return any(self._hooks)

    def _look(self) -> tuple[Any, ...]:
        tensors = [registry[name] for registry, name in self._slots]
        counts = [tensor._version for tensor in tensors] if self._counted else None
        places = [(tensor.data_ptr(), tensor.dtype) for tensor in tensors]
        objects = [id(registry[name]) for registry, name in self._places]
        return counts, places, objects, list(map(type, self._modules))


def _own(root: nn.Module) -> dict[str, Any]:
    """Return the attributes of a model without those that this library leaves there."""
    return {name: value for name, value in root.__dict__.items() if not name.startswith("_fxfuse")}


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as they are now; a list may be written into, and registries are looked at by themselves."""
    kinds = (list, dict, set)
    return {n: v.copy() if type(v) in kinds and n not in REGISTRIES else v for n, v in values.items()}


def _cells(tensor: Tensor) -> list[Any]:
    """Return a few elements of a tensor as they lie in memory, none where that is not at hand."""
    kind = _INTEGERS.get(tensor.element_size())
    if tensor.device.type != "cpu" or kind is None or not tensor.numel():
        return []
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    places = {0, last // 2, last} if tensor.is_contiguous() else {0, last}
    return [kind.from_address(tensor.data_ptr() + place * tensor.element_size()) for place in sorted(places)]
