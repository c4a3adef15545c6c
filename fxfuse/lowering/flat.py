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


class Writer:
    """Writes the forward of one graph."""

    def __init__(self, reading: Reading, plan: Plan, kernels: Mapping[fx.Node, Callable[..., Any]]) -> None:
        """Prepare to write.

        Args:
            reading: the graph.
            plan: what each kernel takes in.
            kernels: the kernels, by their last nodes.
        """
        self.reading, self.plan, self.kernels = reading, plan, kernels
        self.bound: list[Any] = []
        self.tensors: list[Tensor] = []
        self.lines: list[str] = []
        self.parameters: list[str] = []
        self.last_use = self._last_uses()

    def function(self) -> Callable[..., Any]:
        """Return the forward; its first argument says in which order of axes each result is wanted, by node."""
        for node in self.reading.nodes:
            self._write(node)
        names = "".join(f"_c{number}, " for number in range(len(self.bound)))
        body = "\n".join(f"        {line}" for line in self.lines)
        head = ", ".join(["_orders", *self.parameters])
        source = f"def make({names}):\n    def forward({head}):\n{body}\n    return forward\n"
        filename = f"<fxfuse lowered {next(_numbers)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        scope: dict[str, Any] = {}
        exec(compile(source, filename, "exec"), scope)  # noqa: S102 - the code that was written just now
        return scope["make"](*self.bound)

    def _last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """Return the values that nobody needs any more behind a node."""
        last: dict[fx.Node, fx.Node] = {}
        for node in self.reading.nodes:
            if not self._is_skipped(node):
                last |= dict.fromkeys(self._reads(node), node)
        done: dict[fx.Node, list[fx.Node]] = {}
        for value, node in last.items():
            if value.op not in ("placeholder", "get_attr"):
                done.setdefault(node, []).append(value)
        return done

    def _is_skipped(self, node: fx.Node) -> bool:
        return node in self.reading.dead or node in self.plan.inside

    def _reads(self, node: fx.Node) -> list[fx.Node]:
        """Return the values that the line of a node reads."""
        kernel = self.plan.kernels.get(node)
        if kernel is not None:
            return [kernel.source] if kernel.other is None else [kernel.source, kernel.other]
        return [self._stand_in(node, value) for value in node.all_input_nodes]

    def _stand_in(self, reader: fx.Node, value: fx.Node) -> fx.Node:
        """Return what is asked in place of a value that is never made: it has the same shape."""
        kernel = self.plan.inside.get(value)
        if kernel is None:
            return value
        return kernel.source if self.reading.rank_question(reader) else kernel.end

    def _write(self, node: fx.Node) -> None:
        if self._is_skipped(node):
            return
        if node.op == "placeholder":
            default = f"={self._bind(node.args[0])}" if node.args else ""
            self.parameters.append(f"{node.target}{default}")
            return
        if node.op == "output":
            self._write_output(node)
            return
        kernel = self.plan.kernels.get(node)
        if kernel is not None:
            ordered = ".contiguous()" if self.plan.in_order else ""
            call = f"{self._bind(self.kernels[node])}({', '.join(map(self._name, self._reads(node)))}){ordered}"
        else:
            bits = node.target in _IN_ANY_ORDER and _is_of_bits(node)
            if bits or self.reading.sees_layout(node):
                self._put_in_order(node)
            call = self._call(node)
        self.lines.append(f"{self._name(node)} = {call}" + self._freed(node))

    def _freed(self, node: fx.Node) -> str:
        unused = [] if node.users else [node]
        return "".join(f"; {self._name(value)} = None" for value in (*self.last_use.get(node, []), *unused))

    def _put_in_order(self, node: fx.Node) -> None:
        for value in node.all_input_nodes:
            if value.op not in ("placeholder", "get_attr"):
                name = self._name(self._stand_in(node, value))
                self.lines.append(f"{name} = {self._bind(in_usual_order)}({name})")

    def _write_output(self, node: fx.Node) -> None:
        for value in dict.fromkeys(node.all_input_nodes):
            if value.op not in ("placeholder", "get_attr"):
                name = self._name(value)
                order = f"_orders[{self._bind(value)}]"
                self.lines.append(f"{name} = {self._bind(in_order_of)}({name}, {order})")
        self.lines.append(f"return {self._argument(node, node.args[0])}")

    def _call(self, node: fx.Node) -> str:
        args = [self._argument(node, arg) for arg in node.args]
        args += [f"{name}={self._argument(node, arg)}" for name, arg in node.kwargs.items()]
        if node.op == "get_attr":
            return self._constant(str(node.target))
        target = node.target if _is_of_bits(node) else _IN_ANY_ORDER.get(node.target, node.target)
        if node.op == "call_method":
            return f"{args[0]}.{target}({', '.join(args[1:])})"
        module = self.reading.module(node)
        if module is not None:
            torchs = type(module).__module__.startswith("torch.nn.modules.") and not is_hooked(module)
            target = module.forward if torchs and not isinstance(module, torch.jit.ScriptModule) else module
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
        inner = self._argument
        if type(value) is tuple:
            return f"({''.join(inner(node, item) + ', ' for item in value)})"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return f"{self._bind(type(value))}({', '.join(inner(node, item) for item in value)})"
        if isinstance(value, list):
            return f"[{', '.join(inner(node, item) for item in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self._bind(key)}: {inner(node, item)}' for key, item in value.items())}}}"
        if isinstance(value, slice):
            return f"slice({', '.join(inner(node, part) for part in (value.start, value.stop, value.step))})"
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
