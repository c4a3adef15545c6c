"""From a fused graph to a function with its kernels."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from fxfuse.lowering.cpu import CpuEmitter
from fxfuse.lowering.flat import Writer
from fxfuse.lowering.gpu import GpuEmitter
from fxfuse.lowering.plan import Kernel, make_plan
from fxfuse.lowering.reading import Reading
from fxfuse.lowering.report import report_of
from fxfuse.lowering.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from fxfuse.lowering.layer import Layer
    from fxfuse.lowering.plan import Emitter
    from fxfuse.lowering.report import LoweringReport


class DeviceEmitter:
    """Makes kernels for whatever device a layer is on; on a GPU activations pass NaN on in any case."""

    def __init__(self, *, exact_nan: bool) -> None:
        """Prepare the emitters."""
        self._emitters: dict[str, Emitter] = {"cpu": CpuEmitter(exact_nan=exact_nan), "cuda": GpuEmitter()}

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        emitter = self._emitters.get(layer.weight.device.type)
        return f"no kernels for the device {layer.weight.device}" if emitter is None else emitter.obstacle(layer)

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Any]:
        """Return a kernel; ``missed`` is told where torch's own operations run in its place."""
        return self._emitters[layer.weight.device.type].emit(layer, missed)


@dataclass(eq=False)
class Built:
    """What runs in place of a fused graph.

    Attributes:
        function: the forward.
        kernels: the kernels.
        structure: what the graph returns, with nodes in place of values.
        flatten: makes what the graph returns of a result.
        moded: it depends on whether the model trains; an exported program does not.
        watch: tells whether the model is still the one that this was built of.
        report: what each kernel took in, and what stayed.
        orders: for each kind of inputs, in which order the axes of each result lie.
    """

    function: Callable[..., Any]
    kernels: list[Kernel]
    structure: Any
    flatten: Callable[[Any], Any]
    moded: bool
    watch: Watch
    report: LoweringReport
    orders: dict[Any, dict[Any, tuple[int, ...] | None]] = field(default_factory=dict)


def build(fused: fx.GraphModule, emitter: Emitter, missed: Callable[[str], None]) -> Built:
    """Plan, make the kernels, and write the forward; ``missed`` is told the path of a layer that ran as before."""
    reading = Reading(fused)
    plan = make_plan(reading, emitter)
    kernels = list(plan.kernels.values())
    made = {kernel.end: emitter.emit(kernel.layer, functools.partial(missed, kernel.layer.path)) for kernel in kernels}
    writer = Writer(reading, plan, made)
    function, flatten = _called_as_before(fused.graph, writer.function())
    watch = Watch(fused, [*writer.tensors, *(tensor for kernel in kernels for tensor in kernel.tensors)])
    structure = next(node.args[0] for node in reading.nodes if node.op == "output")
    moded = getattr(fused.graph._codegen, "pytree_info", None) is None
    return Built(function, kernels, structure, flatten, moded, watch, report_of(fused, reading, plan))


def _called_as_before(graph: fx.Graph, flat: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """Return the forward with the arguments and results of the model, and what opens its results.

    The graph of an exported program takes and gives flat lists.
    """
    info = getattr(graph._codegen, "pytree_info", None)
    if info is None:
        return flat, lambda result: result
    kinds = [child.type for child in info.in_spec.children()]
    by_name = info.in_spec.type is tuple and kinds == [tuple, dict]
    count = info.in_spec.child(0).num_children if by_name else len(info.orig_args)
    keywords = info.in_spec.child(1).context if by_name else []

    def forward(orders: Any, *args: Any, **kwargs: Any) -> Any:
        values = {**dict(zip(info.orig_args, args, strict=False)), **kwargs}
        passed = tuple(values[name] for name in info.orig_args[:count])
        given: Any = (passed, {name: values[name] for name in keywords}) if by_name else passed
        result = flat(orders, *fx_pytree.tree_flatten_spec(given, info.in_spec))
        return pytree.tree_unflatten(result, info.out_spec)

    return forward, info.out_spec.flatten_up_to
