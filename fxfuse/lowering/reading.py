"""What lowering asks of a graph; no other file of this folder looks into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.aliases import may_alias, runs_user_code, writer_between
from fxfuse.graph.graph import Graph
from fxfuse.graph.uses import asks_rank, asks_shape
from fxfuse.lowering.activations import activation_at
from fxfuse.lowering.layer import Layer
from fxfuse.modules.lookup import is_hooked
from fxfuse.operators.roles import Linear
from fxfuse.operators.sums import Sum
from fxfuse.operators.windows import numbers
from fxfuse.report.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from fxfuse.lowering.activations import Activation

_KINDS: dict[str, Any] = {"linear": "linear", "convolution": "conv"}
_KINDS |= {
    f"{name}{n}d": kind for name, kind in (("conv", "conv"), ("conv_transpose", "transposed")) for n in (1, 2, 3)
}
_NORMS: dict[Any, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
_NUMBERS = {"stride": 1, "padding": 0, "dilation": 1}
_CALLS = ("call_module", "call_function", "call_method")
# What depends on how a value lies in memory, or goes through it in that order; what gives a view or else a copy.
_SEES_LAYOUT = tuple("as_strided stride is_contiguous data_ptr storage view_as_ rand bernoulli dropout normal".split())
_SEES_LAYOUT += (
    "pixel",
    "channel_shuffle",
    "channelshuffle",
    "max_unpool",
    "maxunpool",
)  # not in all orders of volumes
_MAY_COPY = ("view", "reshape", "flatten", "contiguous", "ravel", "to", "unflatten")


class Read(NamedTuple):
    """A layer at its node, the value that it reads, and the tensors of the model that it is made of."""

    node: fx.Node
    source: fx.Node
    layer: Layer
    tensors: tuple[Tensor, ...]


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """Why a layer is left as it is."""


class Reading:
    """A fused graph, as lowering reads it."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        """Read ``graph_module``."""
        self.graph_module, self.graph = graph_module, Graph(graph_module)
        self.nodes = self.graph.nodes
        self.index = {node: number for number, node in enumerate(self.nodes)}
        self.dead = set(self.graph.dead)
        # The same words as elsewhere: see ``Graph``.
        self.path, self.kind, self.module = self.graph.path, self.graph.kind, self.graph.module
        self.written, self.asks_rank = self.graph.mutated, asks_rank

    def layer(self, node: fx.Node) -> Read | None:
        """Return the layer that a node is, None for everything else.

        Raises:
            Unfit: if no kernel does what the layer does.
        """
        module = self.module(node)
        if type(module) in _NORMS:
            return self._norm(node, module)
        try:
            view = self.graph.view(node) if self.graph.plays(node, Linear) else None
            known = isinstance(view, Linear) and view.call.operator.name in _KINDS
            return _linear(view) if isinstance(view, Linear) and known else None
        except (Refusal, Misfit) as refusal:
            raise Unfit(str(refusal)) from None

    def _norm(self, node: fx.Node, module: Any) -> Read | None:
        if is_hooked(module) or "forward" in module.__dict__:
            raise Unfit("it has hooks")
        if module.training or module.running_mean is None:
            raise Unfit("it uses the statistics of each batch")
        mean, variance, *rest = (module.running_mean, module.running_var, module.weight, module.bias)
        weight, bias = (None if tensor is None else tensor.detach().double() for tensor in rest)
        scale = (variance.double() + module.eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean.double() * scale
        source = node.args[0] if node.args else node.kwargs.get("input")
        constants, ranks = (scale.to(mean.dtype), shift.to(mean.dtype)), _NORMS[type(module)]
        layer = Layer("norm", self.path(node), *constants, norm=module.forward, ranks=ranks)
        tensors = tuple(tensor for tensor in (mean, variance, *rest) if tensor is not None)
        return Read(node, source, layer, tensors) if isinstance(source, fx.Node) else None

    def sum(self, node: fx.Node) -> list[fx.Node]:
        """Return the two values that a node adds, none where it does something else."""
        try:
            view = self.graph.view(node) if self.graph.may_be(node, Sum) else None
            terms = view.terms() if type(view) is Sum else []
        except Refusal:
            return []
        return [term.value for term in terms] if [term.factor for term in terms] == [1, 1] else []

    def activation(self, node: fx.Node) -> tuple[fx.Node, Activation] | None:
        """Return what an activation reads, and the activation, None for everything else."""
        module = self.module(node)
        return None if module is not None and is_hooked(module) else activation_at(node, module)

    def only_reader(self, node: fx.Node) -> fx.Node | None:
        """Return who alone reads a value, and once; questions for its shape do not count."""
        readers = self.graph.users(node)
        return readers[0] if len(readers) == 1 else None

    def questions(self, node: fx.Node) -> list[fx.Node]:
        """Return who asks for the shape of a value; how many axes it has can be asked of the layer's input too."""
        return [user for user in node.users if user not in self.dead and asks_shape(user) and not asks_rank(user)]

    def written_between(self, value: fx.Node, start: fx.Node, end: fx.Node) -> bool:
        """Whether something may write into a value behind one node and before another."""
        return start is not end and writer_between(self.graph, value, start, {end}) is not None

    def family(self, value: fx.Node, without: Collection[fx.Node]) -> set[fx.Node] | None:
        """Return the values that may share memory with a value; None where an input, or code of the user's, may too."""
        family, pending = {value}, [value]
        while pending:
            current = pending.pop()
            if current.op not in _CALLS or runs_user_code(self.graph, current):
                return None
            near = [user for user in current.users if current in self._aliased(user)] + self._aliased(current)
            pending += [node for node in near if node not in family and node not in without]
            family.update(pending)
        return family

    def _aliased(self, node: fx.Node) -> list[fx.Node]:
        fresh = node.op == "output" or asks_shape(node) or not may_alias(self.graph, node)
        return [] if fresh else self.written(node) or node.all_input_nodes

    def sees_layout(self, node: fx.Node) -> bool:
        """Whether a node depends on how its inputs lie in memory, for all that is known."""
        module = self.module(node)
        if node.op not in _CALLS or isinstance(module, (nn.RNNBase, torch.jit.ScriptModule)):
            return node.op in _CALLS
        idle = isinstance(module, nn.modules.dropout._DropoutNd) and not module.training
        return runs_user_code(self.graph, node) or (not idle and self._begins(node, _SEES_LAYOUT))

    def _begins(self, node: fx.Node, words: tuple[str, ...]) -> bool:
        module = self.module(node)
        called = node.target if module is None else type(module)
        return str(getattr(called, "__name__", called)).lower().startswith(words)

    @property
    def writes_through_views(self) -> bool:
        """Whether something is written in place into memory that a reshape before may or may not share."""
        writers = [node for node in self.nodes if self.written(node)]
        for node in self.nodes if writers else ():
            if node.op in _CALLS and self._begins(node, _MAY_COPY) and not asks_shape(node):
                late = [writer for writer in writers if self.index[writer] > self.index[node]]
                family = (late and self.family(node, ())) or {node, *node.all_input_nodes}
                if any(not family.isdisjoint(self.written(writer)) for writer in late):
                    return True
        return False


def _linear(view: Linear) -> Read:
    """Return a convolution, transposed convolution or linear layer."""
    call = view.call
    weight, bias = call.tensor("weight", required=True), call.tensor("bias")
    kind: Any = "transposed" if call.get("transposed") else _KINDS[call.operator.name]
    groups = 1 if kind == "linear" else call.get("groups", 1)
    channels = weight.shape[1] * groups if kind == "transposed" else weight.shape[0]
    layer = Layer(kind, call.path, weight, bias)
    mode, padding = call.get("padding_mode", "zeros"), call.get("padding")
    problems = {
        "its weight is computed at each call": bool(view.computed()),
        "its bias is no vector with a number for each channel": bias is not None and bias.shape != (channels,),
        "its padding is a word": isinstance(padding, str),
        f"it pads in the mode {mode!r}": mode != "zeros",
    }
    for problem in (problem for problem, found in problems.items() if found):
        raise Unfit(problem)
    if kind != "linear":
        defaults = {**_NUMBERS, "output_padding": 0} if kind == "transposed" else _NUMBERS
        found: Any = {key: numbers(call.get(key, default), weight.ndim - 2) for key, default in defaults.items()}
        layer = Layer(kind, call.path, weight, bias, **found, groups=groups)
    return Read(view.node, view.input, layer, (weight,) if bias is None else (weight, bias))
