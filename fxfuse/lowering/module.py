"""What comes back: a module that is called as the fused one is, and runs its kernels."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxfuse.lowering.build import Built, DeviceEmitter, build
from fxfuse.lowering.order import order_of, orders_of
from fxfuse.modules.lookup import REGISTRIES
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWN = ("_fused", "_emitter", "_built", "_lock", "_local", "_fallbacks", "_warned", "_exact_nan")
_PLAIN = (Tensor, nn.Parameter)


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
    """

    def __init__(self, fused: fx.GraphModule, *, exact_nan: bool = False, emitter: Any = None) -> None:
        """Share all that ``fused`` holds; the kernels are made when they are needed."""
        super().__init__()
        own = self.__dict__
        own |= {name: fused.__dict__[name] for name in REGISTRIES if name in fused.__dict__}
        own |= {"_fused": fused, "_emitter": emitter, "_built": None, "_lock": threading.RLock()}
        own |= {"_local": threading.local(), "_fallbacks": 0, "_warned": False, "_exact_nan": exact_nan}

    @property
    def fused(self) -> fx.GraphModule:
        """The fused model, which shares all tensors: export, script, trace or train this one."""
        found: fx.GraphModule = self.__dict__["_fused"]
        return found

    @property
    def fallbacks(self) -> int:
        """How many calls ran as in the fused model, in whole or in part, since the kernels do not take them."""
        return int(self.__dict__["_fallbacks"])

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
        built = self._current()
        why = self._obstacle(built)
        if why:
            self._fall_back(why)
            return self.fused.forward(*args, **kwargs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise FuseError(
                "An input requires gradients, and kernels of a lowered model give none; nothing was computed. "
                "Call it in torch.no_grad(), or call lowered.fused."
            )
        key = tuple(map(_signature, tensors))
        orders = built.orders.get(key)
        with torch.no_grad():
            if orders is None:
                return self._learn(built, key, args, kwargs)
            return self._run(built, orders, args, kwargs)

    def _run(self, built: Built, orders: Any, args: Any, kwargs: Any) -> Any:
        local = self.__dict__["_local"]
        local.missed = ""
        result = built.function(orders, *args, **kwargs)
        if local.missed:
            self._fall_back(local.missed)
        return result

    def _learn(self, built: Built, key: Any, args: Any, kwargs: Any) -> Any:
        """Run the fused model once for each kind of inputs, to see in which order the axes of its results lie."""
        result = self.fused.forward(*args, **kwargs)
        if all(kind in _PLAIN and layout is torch.strided for kind, layout, *_ in key):
            built.orders[key] = dict(orders_of(built.structure, built.flatten(result)))
        else:
            self._fall_back("an input is of a class or layout of its own")
        return result

    def _current(self) -> Built:
        """Return the kernels, made anew where the model has changed since."""
        built = self.__dict__["_built"]
        if built is not None and built.watch.unchanged():
            return built
        with self.__dict__["_lock"]:
            built = self.__dict__["_built"]
            if built is None or not built.watch.unchanged():
                emitter = self.__dict__["_emitter"] or DeviceEmitter(exact_nan=self._exact_nan)
                built = build(self.fused, emitter, self._missed)
                built.report.attach(self)
                self.__dict__["_built"] = built
            return built

    def _obstacle(self, built: Built) -> str:
        """Return why kernels cannot run now, empty where they can."""
        if self.training and built.moded:
            return "it is in training mode"
        if built.watch.hooked:
            return "a module inside has hooks"
        if not built.kernels:
            return "it has no layer with a kernel"
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            return "autocast is on"
        if not torch._C._get_mkldnn_enabled():
            return "oneDNN is switched off"
        if torch._C._functorch.peek_interpreter_stack() is not None or torch._C._len_torch_dispatch_stack():
            return "a transform of functions or a dispatch mode is on"
        return ""

    def _missed(self, path: str) -> None:
        """Note that a layer ran as in the fused model."""
        self.__dict__["_local"].missed = f"{path} got a value that its kernel does not take"

    def _fall_back(self, why: str) -> None:
        with self.__dict__["_lock"]:
            self.__dict__["_fallbacks"] += 1
            first, self.__dict__["_warned"] = not self.__dict__["_warned"], True
        if first:
            warnings.warn(
                f"This call of a lowered model ran as the fused model does: {why}. lowered.fallbacks counts such calls.",
                stacklevel=4,
            )

    def train(self, mode: bool = True) -> LoweredModule:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of the fused model too."""
        self.fused.training = mode
        super().train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        """Find attributes and methods that the fused model has kept."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_fused" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self.__dict__["_fused"], name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle the fused model; packed weights can be neither copied nor stored, and are made anew."""
        del protocol
        extras = {n: v for n, v in self.__dict__.items() if n not in REGISTRIES and n not in _OWN}
        return _restore, (self.fused, self._exact_nan, self.__dict__["_emitter"]), extras

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over attributes that were set on the module."""
        self.__dict__.update(state)

    def __prepare_scriptable__(self) -> Any:
        """Say what to script."""
        raise FuseError(_EXPORT)


_EXPORT = (
    "A lowered model calls kernels of this machine, and cannot be exported, scripted or traced; nothing was done. "
    "Export the fused model: lowered.fused."
)


def _restore(fused: fx.GraphModule, exact_nan: bool, emitter: Any) -> LoweredModule:  # noqa: FBT001 - for pickle
    return LoweredModule(fused, exact_nan=exact_nan, emitter=emitter)


def _require_eager(leaves: Iterable[Any]) -> None:
    tracing = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
    if tracing or any(isinstance(leaf, fx.Proxy) for leaf in leaves):
        raise FuseError(_EXPORT)


def _signature(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells apart inputs for which results may lie in another order in memory."""
    if tensor.layout is not torch.strided:
        return type(tensor), tensor.layout
    order = tensor.is_contiguous() or order_of(tensor)
    return type(tensor), tensor.layout, tensor.dim(), tensor.dtype, tensor.device, order
