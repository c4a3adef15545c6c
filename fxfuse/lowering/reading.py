"""What lowering asks of a graph; no other file of this folder looks into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.algebra.geometry import Misfit
from fxfuse.graph.aliases import begins, may_alias, runs_user_code, writer_between
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
    from collections.abc import Collection, Iterator

    from fxfuse.lowering.activations import Activation

_KINDS = {f"conv{n}d": "conv" for n in (1, 2, 3)} | {f"conv_transpose{n}d": "transposed" for n in (1, 2, 3)}
_NORMS: dict[Any, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
# Functions that depend on how a value lies in memory, or on the order in which it is gone through.
_SEES_LAYOUT = tuple("as_strided stride is_contiguous data_ptr storage view_as_ rand bernoulli dropout normal".split())
_MAY_COPY = ("view", "reshape", "flatten", "contiguous", "ravel", "to", "unflatten")


@dataclass(frozen=True, eq=False)
class Read:
    """A layer at its node, with the value that it reads, and the tensors of the model that it is made of."""

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
        self.graph_module = graph_module
        self.graph = Graph(graph_module)
        self.nodes = self.graph.nodes
        self.index = {node: number for number, node in enumerate(self.nodes)}
        self.dead = set(self.graph.dead)

    def path(self, node: fx.Node) -> str:
        """Return where the user finds a node."""
        return self.graph.path(node)

    def kind(self, node: fx.Node) -> str:
        """Return the class or function that does an operation."""
        return self.graph.kind(node)

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""
        return self.graph.module(node)

    def layer(self, node: fx.Node) -> Read | None:
        """Return the layer that a node is, None for everything else.

        Raises:
            Unfit: if no kernel does what the layer does.
        """
        module = self.module(node)
        if type(module) in _NORMS:
            return self._norm(node, module)
        if not self.graph.plays(node, Linear):
            return None
        try:
            view = self.graph.view(node)
            return self._linear(view) if isinstance(view, Linear) else None
        except Refusal as refusal:
            raise Unfit(str(refusal)) from None
        except Misfit as misfit:
            raise Unfit(str(misfit)) from None

    def _linear(self, view: Linear) -> Read | None:
        call = view.call
        name = call.operator.name
        weight, bias = call.tensor("weight", required=True), call.tensor("bias")
        if name != "linear" and name not in _KINDS and name != "convolution":
            return None
        if view.computed():
            raise Unfit("its weight is computed at each call")
        kind: Any = (
            "linear" if name == "linear" else _KINDS.get(name, "transposed" if call.get("transposed") else "conv")
        )
        if bias is not None and tuple(bias.shape) != (
            weight.shape[0 if kind != "transposed" else 1] * _groups(call, kind),
        ):
            raise Unfit("its bias is no vector of one number for each channel")
        tensors = (weight,) if bias is None else (weight, bias)
        if kind == "linear":
            return Read(view.node, view.input, Layer(kind, call.path, weight, bias), tensors)
        axes = weight.ndim - 2
        if isinstance(call.get("padding"), str):
            raise Unfit("its padding is a word")
        if call.get("padding_mode", "zeros") != "zeros":
            raise Unfit(f"it pads in the mode {call.get('padding_mode')!r}")
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
        found = {key: numbers(call.get(key, default), axes) for key, default in defaults.items()}
        found |= {} if kind == "transposed" else {"output_padding": ()}
        layer = Layer(kind, call.path, weight, bias, **found, groups=call.get("groups", 1))
        return Read(view.node, view.input, layer, tensors)

    def _norm(self, node: fx.Node, module: Any) -> Read | None:
        if is_hooked(module) or "forward" in module.__dict__:
            raise Unfit("it has hooks")
        if module.training or module.running_mean is None:
            raise Unfit("it uses the statistics of each batch")
        with torch.no_grad():
            scale = (module.running_var.double() + module.eps).rsqrt()
            scale = scale if module.weight is None else scale * module.weight.double()
            shift = -module.running_mean.double() * scale
            shift = shift if module.bias is None else shift + module.bias.double()
        dtype = module.running_mean.dtype
        source = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(source, fx.Node):
            return None
        tensors = (module.running_mean, module.running_var, module.weight, module.bias)
        ranks = _NORMS[type(module)]
        layer = Layer("norm", self.path(node), scale.to(dtype), shift.to(dtype), norm=module.forward, ranks=ranks)
        return Read(node, source, layer, tuple(tensor for tensor in tensors if tensor is not None))

    def sum(self, node: fx.Node) -> list[fx.Node]:
        """Return the two values that a node adds, none where it does something else."""
        if not self.graph.may_be(node, Sum):
            return []
        try:
            view = self.graph.view(node)
            terms = view.terms() if type(view) is Sum else []
        except Refusal:
            return []
        return [term.value for term in terms] if [term.factor for term in terms] == [1, 1] else []

    def activation(self, node: fx.Node) -> tuple[fx.Node, Activation] | None:
        """Return what an activation reads, and the activation, None for everything else."""
        module = self.module(node)
        if node in self.dead or (module is not None and is_hooked(module)):
            return None
        return activation_at(node, module)

    def only_reader(self, node: fx.Node) -> fx.Node | None:
        """Return who alone reads a value, and once; questions for its shape do not count."""
        readers = self.graph.users(node)
        return readers[0] if len(readers) == 1 else None

    def questions(self, node: fx.Node) -> Iterator[fx.Node]:
        """Yield who asks for the shape of a value; how many axes it has can be asked of the layer's input too."""
        yield from (u for u in node.users if u not in self.dead and asks_shape(u) and not asks_rank(u))

    def rank_question(self, node: fx.Node) -> bool:
        """Whether a node asks only how many axes a value has."""
        return asks_rank(node)

    def written(self, node: fx.Node) -> list[fx.Node]:
        """Return the values that a node writes into."""
        return self.graph.mutated(node)

    def written_between(self, value: fx.Node, start: fx.Node, end: fx.Node) -> bool:
        """Whether something may write into a value behind one node and before another."""
        return start is not end and writer_between(self.graph, value, start, {end}) is not None

    def family(self, value: fx.Node, without: Collection[fx.Node]) -> set[fx.Node] | None:
        """Return the values that may share memory with a value; None where code of the user's may keep it.

        Args:
            value: the value.
            without: nodes that are not gone through.
        """
        family, pending = {value}, [value]
        while pending:
            current = pending.pop()
            if runs_user_code(self.graph, current) or current.op not in ("call_module", "call_function", "call_method"):
                return None
            near = [user for user in current.users if current in self._aliased(user)] + self._aliased(current)
            new = [node for node in near if node not in family and node not in without]
            family.update(new)
            pending += new
        return family

    def _aliased(self, node: fx.Node) -> list[fx.Node]:
        if node.op == "output" or asks_shape(node) or not may_alias(self.graph, node):
            return []
        return self.written(node) or node.all_input_nodes

    def sees_layout(self, node: fx.Node) -> bool:
        """Whether a node depends on how its inputs lie in memory, for all that is known."""
        if node.op not in ("call_module", "call_function", "call_method"):
            return False
        module = self.module(node)
        if isinstance(module, (nn.RNNBase, torch.jit.ScriptModule)):
            return True
        training = module is not None and module.training and begins(self.graph, node, ("dropout", "rrelu"))
        return training or runs_user_code(self.graph, node) or begins(self.graph, node, _SEES_LAYOUT)

    @property
    def writes_through_views(self) -> bool:
        """Whether something is written in place into memory that a reshape before may or may not share."""
        writers = [node for node in self.nodes if self.written(node)]
        for node in self.nodes:
            if writers and node.op != "placeholder" and begins(self.graph, node, _MAY_COPY) and not asks_shape(node):
                late = [writer for writer in writers if self.index[writer] > self.index[node]]
                family = (late and self.family(node, ())) or {node, *node.all_input_nodes}
                if any(not family.isdisjoint(self.written(writer)) for writer in late):
                    return True
        return False


def _groups(call: Any, kind: str) -> int:
    return int(call.get("groups", 1)) if kind == "transposed" else 1


def slots(root: nn.Module) -> dict[int, tuple[dict[str, Tensor | None], str]]:
    """Return where each parameter and buffer of a model is registered, by its id."""
    found: dict[int, tuple[Any, str]] = {}
    for module in root.modules():
        for registry in (module._parameters, module._buffers):
            found |= {id(tensor): (registry, name) for name, tensor in registry.items() if tensor is not None}
    return found
