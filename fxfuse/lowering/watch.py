"""Whether a model is still the one that was lowered: the same tensors with the same values, modules and hooks."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules import module as _torchs

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTEGERS = {2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")


class Watch:
    """Remembers a model as it was when its kernels were made; asking costs some microseconds for each layer."""

    def __init__(self, root: nn.Module, tensors: Iterable[Tensor]) -> None:
        """Look at the model.

        Args:
            root: the model.
            tensors: those of its parameters and buffers of which the kernels hold copies.
        """
        wanted = {id(tensor) for tensor in tensors}
        slots: list[tuple[dict[str, Any], str]] = []
        children: list[tuple[dict[str, Any], str]] = []
        modules = list(root.modules())
        for module in modules:
            children += [(module._modules, name) for name in module._modules]
            for registry in (module._parameters, module._buffers):
                slots += [(registry, name) for name, tensor in registry.items() if id(tensor) in wanted]
        self._hooks: list[dict[Any, Any]] = [getattr(_torchs, name) for name in _GLOBAL]
        self._hooks += [module.__dict__[name] for module in modules if module is not root for name in _HOOKS]
        self._hooks += [root.__dict__[name] for name in ("_backward_hooks", "_backward_pre_hooks")]
        self._slots, self._children = _columns(slots), _columns(children)
        self._modules = list(map(dict.get, *self._children))
        self._norms = [module.__dict__ for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._training = [values["training"] for values in self._norms]
        self._counted = not any(tensor.is_inference() for tensor in self._tensors())
        self._cells = [cell for tensor in self._tensors() for cell in _cells(tensor)]
        self._state = self._look()
        self._sampled = [cell.value for cell in self._cells]

    def unchanged(self) -> bool:
        """Whether it is still the same."""
        try:
            same = self._look() == self._state
        except (AttributeError, TypeError):  # a tensor is gone
            return False
        # What is written through ``.data`` is counted nowhere; the memory is still there, since it is in its place.
        return same and [cell.value for cell in self._cells] == self._sampled

    @property
    def hooked(self) -> bool:
        """Whether a module inside has hooks, or all modules have, which kernels would pass by."""
        return any(self._hooks)

    def _tensors(self) -> list[Tensor]:
        return list(map(dict.get, *self._slots))  # type: ignore[arg-type] # what was found there before

    def _look(self) -> tuple[Any, ...]:
        tensors = self._tensors()
        counts = [tensor._version for tensor in tensors] if self._counted else None
        places = [(tensor.data_ptr(), tensor.dtype) for tensor in tensors]
        same = list(map(dict.get, *self._children)) == self._modules
        return counts, places, same, [values["training"] for values in self._norms] == self._training


def _columns(pairs: list[tuple[dict[str, Any], str]]) -> tuple[list[dict[str, Any]], list[str]]:
    return [registry for registry, _ in pairs], [name for _, name in pairs]


def _cells(tensor: Tensor) -> list[Any]:
    """Return a few elements of a tensor as they lie in memory, none where that is not at hand."""
    kind = _INTEGERS.get(tensor.element_size())
    if tensor.device.type != "cpu" or kind is None or not tensor.numel():
        return []
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    places = {0, last // 2, last} if tensor.is_contiguous() else {0, last}
    return [kind.from_address(tensor.data_ptr() + place * tensor.element_size()) for place in sorted(places)]
