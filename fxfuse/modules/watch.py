"""Whether a model is still the one that was lowered: the same tensors with the same values, modules and hooks."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torchs

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTEGERS = {2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
_HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


class Watch:
    """Remembers a model as it was when its kernels were made; to ask costs less than a microsecond for each layer."""

    def __init__(self, root: nn.Module, tensors: Iterable[Tensor], bound: Iterable[Tensor]) -> None:
        """Look at the model: kernels hold copies of some tensors, and the forward has bound some others."""
        wanted, held = {id(tensor) for tensor in tensors}, {id(tensor) for tensor in bound}
        modules = [m for m in root.modules() if not isinstance(m, torch.jit.ScriptModule)]  # which live in C++
        registries: list[dict[str, Any]] = [each for m in modules for each in (m._parameters, m._buffers)]
        self._slots = [(registry, n) for registry in registries for n, t in registry.items() if id(t) in wanted]
        self._places: list[tuple[dict[str, Any], str]] = [(m._modules, name) for m in modules for name in m._modules]
        self._places += [(registry, n) for registry in registries for n, t in registry.items() if id(t) in held]
        self._held = [registry[name] for registry, name in self._places]  # so that no other object gets its id
        self._norms = [module.__dict__ for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._hooks: list[Any] = [getattr(_torchs, f"_global_{name}") for name in _HOOKS]
        self._hooks += [module.__dict__[f"_{name}"] for module in modules if module is not root for name in _HOOKS]
        found = [registry[name] for registry, name in self._slots]
        self._counted = not any(tensor.is_inference() for tensor in found)
        self._cells = [cell for tensor in found for cell in _cells(tensor)]
        self._state, self._sampled = self._look(), [cell.value for cell in self._cells]

    def unchanged(self) -> bool:
        """Whether it is still the same."""
        try:
            same = self._look() == self._state
        except (AttributeError, KeyError):  # a tensor is gone
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
        return counts, places, objects, [values["training"] for values in self._norms]


def _cells(tensor: Tensor) -> list[Any]:
    """Return a few elements of a tensor as they lie in memory, none where that is not at hand."""
    kind = _INTEGERS.get(tensor.element_size())
    if tensor.device.type != "cpu" or kind is None or not tensor.numel():
        return []
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    places = {0, last // 2, last} if tensor.is_contiguous() else {0, last}
    return [kind.from_address(tensor.data_ptr() + place * tensor.element_size()) for place in sorted(places)]
