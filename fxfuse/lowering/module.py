"""What comes back: a module that is called as the fused one is, and runs its kernels."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxfuse.lowering.build import Built
from fxfuse.lowering.cpu import CpuEmitter
from fxfuse.lowering.gpu import GpuEmitter
from fxfuse.lowering.order import order_of
from fxfuse.modules.lookup import REGISTRIES
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXPORT = (
    "A lowered model calls kernels of this machine, and cannot be exported, scripted or traced; nothing was done. "
    "Export the fused model: lowered.fused."
)


class LoweredModule(nn.Module):
    """A fused model of which each layer, with what follows it, is one kernel; made by ``fxfuse.lower``.

    Modules, parameters, buffers and ``state_dict`` are those of the fused model, which it holds.  The packed weights
    are made on first use, and again after the weights were loaded, moved, converted or copied.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse, lower
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
        >>> fast = lower(fx_fuse(model))
        >>> fast(torch.randn(2, 3, 16, 16)).shape, fast.fallbacks
        (torch.Size([2, 8, 14, 14]), 0)

    Attributes:
        fused: the fused model, which shares all tensors: export, script, trace or train this one.
        fallbacks: how many calls ran as in the fused model, in whole or in part, since no kernel takes them.
    """

    def __init__(self, fused: fx.GraphModule, *, exact_nan: bool = False, emitter: Any = None) -> None:
        """Share all that ``fused`` holds; the kernels are made when they are needed."""
        super().__init__()
        self.__dict__.update({name: fused.__dict__[name] for name in REGISTRIES if name in fused.__dict__})
        own = {"fused": fused, "fallbacks": 0, "_made_of": (fused, exact_nan, emitter), "_built": None}
        own |= {"_lock": threading.RLock(), "_local": threading.local()}
        self.__dict__.update(own)  # the fused model is no child
        self.__dict__["_own"] = frozenset([*own, "_own"])

    if TYPE_CHECKING:
        fused: fx.GraphModule
        fallbacks: int

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernels, or the fused model where they do not take the call.

        Raises:
            FuseError: if the model is being exported, scripted or traced, or an input requires gradients.
        """
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return self.fused.forward(*args, **kwargs)
        _require_eager([args])  # torch.fx passes a proxy for all arguments
        simple = not kwargs and all(type(arg) is Tensor for arg in args)
        leaves: Iterable[Any] = args if simple else pytree.tree_leaves((args, kwargs))
        _require_eager(leaves)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        built = self._current()
        why = self._obstacle(built, tensors)
        if why:
            self._fall_back(why)
            return self.fused.forward(*args, **kwargs)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise FuseError(
                "An input requires gradients, and kernels of a lowered model give none; nothing was computed. "
                "Call it in torch.no_grad(), or call lowered.fused."
            )
        key = tuple(map(_signature, tensors))
        orders = built.orders.get(key)
        with torch.no_grad():
            if orders is None:  # see once for each kind of inputs in which order the axes of the results lie
                result = self.fused.forward(*args, **kwargs)
                built.learn(key, result)
                return result
            self._local.missed = ""
            result = built.forward(orders, *args, **kwargs)
        if self._local.missed:
            self._fall_back(f"{self._local.missed} got a value that its kernel does not take")
        return result

    def _current(self) -> Built:
        """Return the kernels, made anew where the model has changed since."""
        built = self._built
        if built is None or not built.watch.unchanged():
            with self._lock:
                built = self._built
                if built is None or not built.watch.unchanged():
                    built = self.__dict__["_built"] = self._build()
        return built

    def _build(self) -> Built:
        _, exact_nan, emitter = self._made_of
        on_gpu = any(parameter.is_cuda for parameter in self.parameters())
        emitter = emitter or (GpuEmitter() if on_gpu else CpuEmitter(exact_nan=exact_nan))
        built = Built(self.fused, emitter, lambda path: setattr(self._local, "missed", path))
        built.report.attach(self)
        return built

    def _obstacle(self, built: Built, tensors: list[Tensor]) -> str:
        """Return why kernels cannot run now, empty where they can."""
        obstacles = {
            "it is in training mode": self.training and built.trains,
            "a module has hooks": built.watch.hooked,
            "it has no layer with a kernel": built.empty,
            "autocast is on": torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
            "oneDNN is switched off": not torch._C._get_mkldnn_enabled(),
            "a transform of functions is on": torch._C._functorch.peek_interpreter_stack() is not None,
            "a dispatch mode is on": torch._C._len_torch_dispatch_stack() > 0,
            "an input is of a class or layout of its own": not all(map(_is_plain, tensors)),
        }
        return next((why for why, found in obstacles.items() if found), "")

    def _fall_back(self, why: str) -> None:
        with self._lock:
            self.fallbacks += 1
        if self.fallbacks == 1:
            counted = "lowered.fallbacks counts such calls."
            warnings.warn(f"This call of a lowered model ran as the fused one does: {why}. {counted}", stacklevel=4)

    def train(self, mode: bool = True) -> LoweredModule:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of the fused model too."""
        self.fused.training = mode
        super().train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        """Find attributes and methods that the fused model has kept."""
        known = name in self._parameters or name in self._buffers or name in self._modules
        if known or name.startswith("__") or "fused" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.fused, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle the fused model; packed weights can be neither copied nor stored, and are made anew."""
        extras = {n: v for n, v in self.__dict__.items() if n not in REGISTRIES and n not in self._own}
        return _restore, self._made_of, extras

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over attributes that were set on the module."""
        self.__dict__.update(state)

    def __prepare_scriptable__(self) -> Any:
        """Say what to script."""
        raise FuseError(_EXPORT)


def _restore(fused: fx.GraphModule, exact_nan: bool, emitter: Any) -> LoweredModule:  # noqa: FBT001 - for pickle
    return LoweredModule(fused, exact_nan=exact_nan, emitter=emitter)


def _require_eager(leaves: Iterable[Any]) -> None:
    tracing = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
    if tracing or any(isinstance(leaf, fx.Proxy) for leaf in leaves):
        raise FuseError(_EXPORT)


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided


def _signature(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells apart inputs for which results may lie in another order in memory."""
    return tensor.dim(), tensor.dtype, tensor.device, tensor.is_contiguous() or order_of(tensor)
