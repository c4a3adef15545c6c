"""What runs a forward by its kernels, and knows when it must run as it is."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxfuse.lowering.cpu import CpuEmitter
from fxfuse.lowering.flat import Writer
from fxfuse.lowering.gpu import GpuEmitter
from fxfuse.lowering.plan import make_plan
from fxfuse.lowering.reading import Reading
from fxfuse.modules.axis_order import in_order_of, order_of, order_of_result
from fxfuse.modules.unchanged import Watch
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fxfuse.report.lowered import Lowered


_OBSTACLES = (
    *("it is in training mode", "a module has hooks", "it has no layer with a kernel", "autocast is on"),
    *("oneDNN is switched off", "a transform of functions is on", "a dispatch mode is on"),
    "an input is of a class or layout of its own",
)


class Built:
    """What runs in place of a graph: its kernels, and the forward that calls them.

    Attributes:
        forward: the forward.
        watch: tells whether the model is still the one that this was built of.
        layers: what became of each layer.
        orders: for each kind of inputs, in which order the axes of each result lie.
        trains: it depends on whether the model trains; an exported program does not.
    """

    def __init__(self, graph: fx.GraphModule, runner: Runner, emitter: Any) -> None:
        """Build it."""
        reading = Reading(graph, runner.path)
        plan = make_plan(reading, emitter)
        layers = {node: kernel.layer for node, kernel in plan.kernels.items()}
        made = {node: emitter.emit(one, functools.partial(runner.note, one.path)) for node, one in layers.items()}
        writer = Writer(reading, plan, made)
        self.forward = writer.function()
        copied = [tensor for layer in layers.values() for tensor in layer.copied]
        held = [layer.bias for layer in layers.values() if layer.bias is not None and layer.kind != "norm"]
        self.watch = Watch(runner.module, copied, held + writer.tensors, reading.called)
        self.layers, self.empty = plan.told(reading), not made
        self.trains = not hasattr(graph.graph._codegen, "pytree_info")
        self.orders: dict[Any, list[tuple[int, ...] | None]] = {}


class Runner:
    """Runs the kernels of a graph, or the module that the graph stands for where they do not take the call.

    Attributes:
        module: the module; in training mode it runs itself.
        fallbacks: how many calls ran as in the module, in whole or in part, since no kernel takes them.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[..., Any],
        graph: Callable[[], fx.GraphModule],
        emitter: Any,
        tell: Callable[[tuple[Lowered, ...]], None] = lambda _: None,
        path: str = "",
        traced: Callable[..., Any] | None = None,
    ) -> None:
        """Build nothing yet.

        Args:
            module: the module.
            forward: its forward.
            graph: gives its graph, each time that the module has changed.
            emitter: makes the kernels; in place of a CPU's comes a GPU's where the module is there.
            tell: is told what became of each layer, each time that the kernels are made.
            path: where the module stands in the user's model.
            traced: what runs for somebody who looks for a graph, in place of the forward.
        """
        self.module, self.path, self.fallbacks = module, path, 0
        self._forward, self._graph, self._emitter, self._tell = forward, graph, emitter, tell
        self._traced = traced or forward
        self._built: Built | None = None
        self._lock, self._local = threading.RLock(), threading.local()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernels, or the forward where they do not take the call.

        Raises:
            FuseError: if an input requires gradients.
        """
        simple = not kwargs and all(type(arg) is Tensor for arg in args)
        leaves: Iterable[Any] = args if simple else pytree.tree_leaves((args, kwargs))
        if _is_traced(leaves):
            return self._traced(*args, **kwargs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        built = self.current()
        why = self._obstacle(built, tensors)
        if why:
            self._fall_back(why)
            return self._forward(*args, **kwargs)
        if torch.is_grad_enabled():
            if any(tensor.requires_grad for tensor in tensors):
                raise FuseError(
                    "An input requires gradients, and kernels of a lowered model give none; nothing was computed. "
                    "Call it in torch.no_grad(), or call the fused model (lowered.fused)."
                )
            with torch.no_grad():
                return self._run(built, tuple(map(_signature, tensors)), args, kwargs)
        return self._run(built, tuple(map(_signature, tensors)), args, kwargs)

    def _run(self, built: Built, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the kernels; see once for each kind of inputs in which order the axes of results lie."""
        if key not in built.orders:
            result = self._forward(*args, **kwargs)
            built.orders[key] = [order_of_result(leaf) for leaf in pytree.tree_leaves(result)]
            return result
        self._local.missed = ""
        result = _ordered(built.forward(*args, **kwargs), built.orders[key])
        if self._local.missed:
            self._fall_back(f"{self._local.missed} got a value that its kernel does not take")
        return result

    def current(self) -> Built:
        """Return the kernels, made anew where the model has changed since."""
        built = self._built
        if built is None or not built.watch.unchanged():
            with self._lock:
                built = self._built
                if built is None or not built.watch.unchanged():
                    on_gpu = any(parameter.is_cuda for parameter in self.module.parameters())
                    emitter = GpuEmitter() if on_gpu and type(self._emitter) is CpuEmitter else self._emitter
                    built = Built(self._graph(), self, emitter)
                    self._built = built
                    self._tell(built.layers)
        return built

    def note(self, missed: str) -> None:
        """Note the path of a layer that got a value which its kernel does not take."""
        self._local.missed = missed

    def _obstacle(self, built: Built, tensors: list[Tensor]) -> str:
        """Return why kernels cannot run now, empty where they can."""
        found = (
            self.module.training and built.trains,
            built.watch.hooked,
            built.empty,
            torch._C._is_any_autocast_enabled(),
            not torch._C._get_mkldnn_enabled(),
            torch._C._functorch.peek_interpreter_stack() is not None,
            torch._C._len_torch_dispatch_stack() > 0,
            not all(map(_is_plain, tensors)),
        )
        return _OBSTACLES[found.index(True)] if True in found else ""

    def _fall_back(self, why: str) -> None:
        with self._lock:
            self.fallbacks += 1
        if self.fallbacks == 1:
            told = f"This call of a lowered {type(self.module).__name__} ran as the fused one does: {why}."
            warnings.warn(f"{told} lowered.fallbacks counts such calls.", stacklevel=5)


def _is_traced(leaves: Iterable[Any]) -> bool:
    """Whether somebody looks for the graph of a model, and does not run it."""
    looks = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return looks or any(isinstance(leaf, fx.Proxy) for leaf in leaves)


def _ordered(result: Any, orders: list[tuple[int, ...] | None]) -> Any:
    """Return a result with the axes of each tensor in the order that they have in the fused model."""
    if isinstance(result, Tensor) and len(orders) == 1:
        return in_order_of(result, orders[0])
    leaves, structure = pytree.tree_flatten(result)
    return structure.unflatten(map(in_order_of, leaves, orders)) if len(leaves) == len(orders) else result


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided


def _signature(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells apart inputs for which results may lie in another order in memory."""
    return tensor.dim(), tensor.dtype, tensor.device, tensor.is_contiguous() or order_of(tensor)
