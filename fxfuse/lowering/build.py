"""From a fused graph to a function with its kernels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from fxfuse.lowering.flat import Writer
from fxfuse.lowering.order import orders_of
from fxfuse.lowering.plan import make_plan
from fxfuse.lowering.reading import Reading
from fxfuse.lowering.report import report_of
from fxfuse.lowering.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx


class Built:
    """What runs in place of a fused graph: plan, kernels, and the forward.

    Attributes:
        forward: the forward; its first argument is one of ``orders``.
        watch: tells whether the model is still the one that this was built of.
        report: what each kernel took in, and what stayed.
        orders: for each kind of inputs, in which order the axes of each result lie, by node.
        trains: it depends on whether the model trains; an exported program does not.
    """

    def __init__(self, fused: fx.GraphModule, emitter: Any, missed: Callable[[str], None]) -> None:
        """Build it; ``missed`` is told the path of a layer that got a value which its kernel does not take."""
        reading = Reading(fused)
        plan = make_plan(reading, emitter)
        kernels = plan.kernels.items()
        made = {node: emitter.emit(k.layer, functools.partial(missed, k.layer.path)) for node, k in kernels}
        writer = Writer(reading, plan, made)
        self._flat, self._structure = writer.function(), reading.nodes[-1].args[0]
        self._tree = getattr(fused.graph._codegen, "pytree_info", None)
        self.forward = self._flat if self._tree is None else self._through_tree
        self.watch = Watch(fused, [tensor for _, kernel in kernels for tensor in kernel.tensors], writer.tensors)
        self.report, self.empty, self.trains = report_of(fused, reading, plan), not made, self._tree is None
        self.orders: dict[Any, dict[fx.Node, tuple[int, ...] | None]] = {}

    def learn(self, key: Any, result: Any) -> None:
        """Remember the order of axes in what the fused model gave for a kind of inputs."""
        flat = result if self._tree is None else self._tree.out_spec.flatten_up_to(result)
        self.orders[key] = dict(orders_of(self._structure, flat))

    def _through_tree(self, orders: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the graph of an exported program, which takes and gives flat lists."""
        info: Any = self._tree
        values = {**dict(zip(info.orig_args, args, strict=False)), **kwargs}
        given: Any = tuple(values[name] for name in info.orig_args)
        if [child.type for child in info.in_spec.children()] == [tuple, dict]:
            count, names = info.in_spec.child(0).num_children, info.in_spec.child(1).context
            given = (given[:count], {name: values[name] for name in names})
        result = self._flat(orders, *fx_pytree.tree_flatten_spec(given, info.in_spec))
        return pytree.tree_unflatten(result, info.out_spec)
