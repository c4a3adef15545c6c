"""The forward as one flat function: each step a line, each kernel and constant bound once."""

from __future__ import annotations

import itertools
import linecache
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.lowering.order import in_order_of, in_usual_order
from fxfuse.modules.lookup import fetch, is_hooked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fxfuse.lowering.plan import Plan
    from fxfuse.lowering.reading import Reading

_numbers = itertools.count()
_aten = torch.ops.aten
# What wants a value in the usual order, and what does the same in any.
_IN_ANY_ORDER: dict[Any, Any] = {
    "view": "reshape",
    "view_as": "reshape_as",
    torch.Tensor.view: torch.Tensor.reshape,
    _aten.view.default: _aten.reshape.default,
    _aten._unsafe_view.default: _aten.reshape.default,
}
_GIVEN = ("placeholder", "get_attr")


class Writer:
    """Writes the forward of one graph."""

    def __init__(self, reading: Reading, plan: Plan, kernels: Mapping[fx.Node, Callable[..., Any]]) -> None:
        """Prepare to write; the kernels are given by their last nodes."""
        self.reading, self.plan, self.kernels = reading, plan, kernels
        self.bound: list[Any] = []
        self.tensors: list[Tensor] = []
        self.lines: list[str] = []
        self.parameters = ["_orders"]
        self.nodes = [node for node in reading.nodes if node not in reading.dead and node not in plan.inside]
        last = {value: node for node in self.nodes for value in (node, *self._reads(node))}
        self.unused: dict[fx.Node, list[fx.Node]] = {}
        for value, node in last.items():
            self.unused.setdefault(node, []).extend([] if value.op in (*_GIVEN, "output") else [value])

    def function(self) -> Callable[..., Any]:
        """Return the forward; its first argument says in which order of axes each result is wanted, by node."""
        for node in self.nodes:
            self._write(node)
        names = "".join(f"_c{number}, " for number in range(len(self.bound)))
        body = "\n".join(f"        {line}" for line in self.lines)
        source = f"def make({names}):\n    def forward({', '.join(self.parameters)}):\n{body}\n    return forward\n"
        filename = f"<fxfuse lowered {next(_numbers)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        scope: dict[str, Any] = {}
        exec(compile(source, filename, "exec"), scope)  # noqa: S102 - the code that was written just now
        return scope["make"](*self.bound)

    def _reads(self, node: fx.Node) -> list[fx.Node]:
        kernel = self.plan.kernels.get(node)
        return [self._stand_in(node, v) for v in node.all_input_nodes] if kernel is None else list(kernel.reads)

    def _stand_in(self, reader: fx.Node, value: fx.Node) -> fx.Node:
        """Return what is asked in place of a value that is never made: it has the same shape."""
        kernel = self.plan.inside.get(value)
        if kernel is None:
            return value
        return kernel.reads[0] if self.reading.asks_rank(reader) else kernel.end

    def _write(self, node: fx.Node) -> None:
        kernel, name = self.plan.kernels.get(node), self._name(node)
        made = [value for value in self._reads(node) if value.op not in _GIVEN]
        if node.op == "placeholder":
            self.parameters.append(str(node.target) + (f"={self._bind(node.args[0])}" if node.args else ""))
            return
        if node.op == "output":
            for value in made:
                wanted = f"{self._name(value)}, _orders[{self._bind(value)}]"
                self.lines.append(f"{self._name(value)} = {self._bind(in_order_of)}({wanted})")
            self.lines.append(f"return {self._argument(node, node.args[0])}")
            return
        if kernel is not None:
            call = f"{self._bind(self.kernels[node])}({', '.join(map(self._name, kernel.reads))})"
            call += ".contiguous()" if self.plan.in_order else ""
        else:
            call = self._call(node)
            if self.reading.sees_layout(node) or (node.target in _IN_ANY_ORDER and _is_of_bits(node)):
                self.lines += [f"{self._name(v)} = {self._bind(in_usual_order)}({self._name(v)})" for v in made]
        self.lines.append(f"{name} = {call}" + "".join(f"; {self._name(v)} = None" for v in self.unused.get(node, [])))

    def _call(self, node: fx.Node) -> str:
        if node.op == "get_attr":
            return self._constant(str(node.target))
        args = [self._argument(node, arg) for arg in node.args]
        args += [f"{name}={self._argument(node, arg)}" for name, arg in node.kwargs.items()]
        target = node.target if _is_of_bits(node) else _IN_ANY_ORDER.get(node.target, node.target)
        if node.op == "call_method":
            return f"{args[0]}.{target}({', '.join(args[1:])})"
        module = self.reading.module(node)
        if module is not None:
            torchs = type(module).__module__.startswith("torch.nn.modules.") and not is_hooked(module)
            target = module.forward if torchs else module
        return f"{self._bind(target)}({', '.join(args)})"

    def _constant(self, target: str) -> str:
        root = self.reading.graph_module
        value = fetch(root, target)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return self._bind(value)
        return f"{self._bind(lambda: fetch(root, target))}()"

    def _argument(self, node: fx.Node, value: Any) -> str:
        """Return an argument as code."""
        if isinstance(value, fx.Node):
            return self._name(self._stand_in(node, value))
        if isinstance(value, slice):
            return f"slice{self._argument(node, (value.start, value.stop, value.step))}"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self._bind(k)}: {self._argument(node, item)}" for k, item in value.items()) + "}"
        if isinstance(value, (tuple, list)):
            items = "".join(f"{self._argument(node, item)}, " for item in value)
            named = self._bind(type(value)) if hasattr(value, "_fields") else ""
            return f"[{items}]" if isinstance(value, list) else f"{named}({items})"
        plain = value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
        return repr(value) if plain else self._bind(value)

    def _name(self, node: fx.Node) -> str:
        return str(node.target).lstrip("*") if node.op == "placeholder" else f"_v{self.reading.index[node]}"

    def _bind(self, value: Any) -> str:
        self.bound.append(value)
        return f"_c{len(self.bound) - 1}"


def _is_of_bits(node: fx.Node) -> bool:
    """Whether ``x.view(dtype)`` is meant, which looks at the same bits in another way."""
    return any(isinstance(arg, torch.dtype) for arg in (*node.args, *node.kwargs.values()))
