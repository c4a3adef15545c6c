"""From a fused graph to a function with its kernels."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxfuse.lowering.flat import Writer
from fxfuse.lowering.kernels import DeviceEmitter
from fxfuse.lowering.plan import Kernel, make_plan
from fxfuse.lowering.reading import Reading
from fxfuse.lowering.report import report_of
from fxfuse.lowering.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from fxfuse.lowering.report import LoweringReport


@dataclass(eq=False)
class Built:
    """What runs in place of a fused graph.

    Attributes:
        function: the forward.
        kernels: the kernels.
        structure: what the graph returns, with nodes in place of values.
        watch: tells whether the model is still the one that this was built of.
        report: what each kernel took in, and what stayed.
        orders: for each kind of inputs, in which order the axes of each result lie.
    """

    function: Callable[..., Any]
    kernels: list[Kernel]
    structure: Any
    watch: Watch
    report: LoweringReport
    orders: dict[Any, dict[Any, tuple[int, ...] | None]] = field(default_factory=dict)


def build(fused: fx.GraphModule, emitter: Any, missed: Callable[[str], None], *, exact_nan: bool) -> Built:
    """Plan, make the kernels, and write the forward.

    Args:
        fused: the fused graph.
        emitter: makes the kernels; None for those of the devices that the layers are on.
        missed: told the path of a layer that got a value which its kernel does not take.
        exact_nan: let activations pass NaN on.
    """
    emitter = DeviceEmitter(exact_nan=exact_nan) if emitter is None else emitter
    reading = Reading(fused)
    plan = make_plan(reading, emitter)
    kernels = list(plan.kernels.values())
    made = {kernel.end: emitter.emit(kernel.layer, functools.partial(missed, kernel.layer.path)) for kernel in kernels}
    writer = Writer(reading, plan, made)
    function = writer.function()
    watch = Watch(fused, [*writer.tensors, *(tensor for kernel in kernels for tensor in kernel.tensors)])
    structure = next(node.args[0] for node in reading.nodes if node.op == "output")
    return Built(function, kernels, structure, watch, report_of(fused, reading, plan))
