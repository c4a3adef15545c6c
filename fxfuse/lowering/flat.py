"""The forward with its kernels: a graph of which torch.fx makes one flat function, each kernel bound once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from fxfuse.lowering.reading import is_of_nn
from fxfuse.modules.axis_order import averaged, in_usual_order, shuffled
from fxfuse.modules.lookup import fetch, is_hooked
from fxfuse.operators.pools import mean_of_image
from fxfuse.operators.shuffles import shuffle_by_hand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fxfuse.lowering.plan import Plan
    from fxfuse.lowering.reading import Reading


class Writer:
    """Writes the forward of one graph.

    Attributes:
        tensors: the tensors that the forward has bound.
    """

    def __init__(self, reading: Reading, plan: Plan, kernels: Mapping[fx.Node, Callable[..., Any]]) -> None:
        """Prepare to write; the kernels are given by their last nodes."""
        self.reading, self.plan, self.kernels = reading, plan, kernels
        self.graph, self.bound = fx.Graph(), dict[str, Any]()
        self.written: dict[fx.Node, fx.Node] = {}
        self.tensors: list[Tensor] = []
        self.shuffles = {node: found for node in reading.nodes if (found := shuffle_by_hand(reading.graph, node))}

    def function(self) -> Callable[..., Any]:
        """Return the forward."""
        shuffled_inside = {node for chain, _, _ in self.shuffles.values() for node in chain[:-1]}
        for node in self.reading.nodes:
            if node not in self.reading.dead | self.plan.inside.keys() | shuffled_inside:
                self.written[node] = self._write(node)
        self.graph.set_codegen(self.reading.codegen)
        module = fx.GraphModule(nn.Module(), fx.Graph(), "Lowered")
        module.graph = self.graph
        module.__dict__.update(self.bound)  # found there at once
        return module.forward

    def _write(self, node: fx.Node) -> fx.Node:
        kernel = self.plan.kernels.get(node)
        if kernel is not None:
            result = self._call(self.kernels[node], *(self.written[value] for value in kernel.reads))
            return self._call(in_usual_order, result) if self.plan.in_order else result
        if node in self.shuffles:
            (*_, source), *sizes = self.shuffles[node]
            return self._call(shuffled, *fx.map_arg((source, *sizes), self.written.__getitem__))
        mean = mean_of_image(self.reading.graph, node)
        if mean is not None:
            return self._call(averaged, self.written[mean[0]], *mean[1:])
        if node.op == "get_attr":
            return self._constant(str(node.target))
        return self._write_as_it_is(node)

    def _write_as_it_is(self, node: fx.Node) -> fx.Node:
        if self.reading.sees_layout(node):
            for value in node.all_input_nodes:
                if value not in self.reading.numbers and value.op not in ("placeholder", "get_attr"):
                    self.written[value] = self._call(in_usual_order, self.written[value])
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda value: self._stand_in(node, value))
        module = self.reading.module(node)
        if module is not None:
            at_once = is_of_nn(module) and not is_hooked(module)
            return self._call(module.forward if at_once else module, *args, **kwargs)
        return self.graph.create_node(node.op, node.target, args, kwargs)

    def _stand_in(self, reader: fx.Node, value: fx.Node) -> fx.Node:
        """Return what is read; what is asked in place of a value that is never made has the same shape."""
        kernel = self.plan.inside.get(value)
        if kernel is None:
            return self.written[value]
        return self.written[kernel.reads[0] if self.reading.asks_rank(reader) else kernel.end]

    def _constant(self, target: str) -> fx.Node:
        root = self.reading.graph_module
        value = fetch(root, target)
        if not isinstance(value, Tensor):
            return self._call(lambda: fetch(root, target))
        self.tensors.append(value)
        return self.graph.create_node("get_attr", self._bind(value))

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.create_node("call_module", self._bind(function), args, kwargs)

    def _bind(self, value: Any) -> str:
        name = f"_c{len(self.bound)}"
        self.bound[name] = value
        return name
