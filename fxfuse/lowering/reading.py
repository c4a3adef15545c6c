"""What lowering asks of a graph; no other file of this folder looks into one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import fx

from fxfuse.algebra.geometry import Misfit
from fxfuse.algebra.running_norms import CONSTANTS
from fxfuse.graph.aliases import family_of, runs_user_code, writer_between
from fxfuse.graph.call import call_of
from fxfuse.graph.graph import Graph
from fxfuse.graph.ranks import is_size
from fxfuse.graph.uses import asks_rank, asks_shape
from fxfuse.lowering.activations import ACTIVATIONS
from fxfuse.lowering.layer import Layer
from fxfuse.operators.noops import Noop
from fxfuse.operators.norms import BatchNorm
from fxfuse.operators.roles import Linear
from fxfuse.operators.shuffles import PixelShuffle
from fxfuse.operators.sums import Sum
from fxfuse.operators.windows import numbers
from fxfuse.report.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from fxfuse.lowering.activations import Activation

_KINDS: dict[str, Any] = {"linear": "linear", "convolution": "conv"}
_KINDS |= {f"{name}{n}d": kind for name, kind in (("conv", "conv"), ("conv_transpose", "transposed")) for n in "123"}
_CALLS = ("call_module", "call_function", "call_method")
_IMAGES = 4


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """Why a layer is left as it is."""


class Reading:
    """A fused graph, as lowering reads it."""

    def __init__(self, graph_module: fx.GraphModule, path: str = "") -> None:
        """Read ``graph_module``, which stands at a path in the user's model, but for what gives back its very input."""
        self.graph_module, self.graph = graph_module, Graph(graph_module, path)
        self.called = {module: self._settings(node) for node in self.graph.nodes if (module := self.graph.module(node))}
        idle = set(filter(self.is_idle, self.graph.nodes))
        if idle:
            self.graph = Graph(_without(idle, self.graph, graph_module), path)
        self.nodes, self.codegen = self.graph.nodes, graph_module.graph._codegen
        self.index = {node: number for number, node in enumerate(self.nodes)}
        self.dead = set(self.graph.dead)
        # The same words as elsewhere: see ``Graph``.
        self.path, self.kind, self.module = self.graph.path, self.graph.kind, self.graph.module
        self.written, self.asks_rank = self.graph.mutated, asks_rank
        self.numbers: set[fx.Node] = set()
        for node in self.nodes:
            row, python = self.graph.row(node), getattr(node.target, "__module__", "") in ("_operator", "math")
            of_numbers = python and node.all_input_nodes and self.numbers.issuperset(node.all_input_nodes)
            if is_size(node) or asks_shape(node) or of_numbers or (row is not None and row.result == "number"):
                self.numbers.add(node)  # certainly no tensor

    def _settings(self, node: fx.Node) -> tuple[str, ...] | None:
        """Return the names of what a module was set to, as far as something here has looked; None if it is unknown."""
        row, module = self.graph.row(node), self.graph.module(node)
        return row.names if row is not None else () if is_of_nn(module) else None

    def layer(self, node: fx.Node) -> tuple[fx.Node, Layer] | None:
        """Return the value that a layer reads, and the layer, None for everything else.

        Raises:
            Unfit: if no kernel does what the layer does.
        """
        try:
            if self.graph.plays(node, Linear):
                view: Any = self.graph.view(node)
                return _linear(view) if view is not None and view.call.operator.name in _KINDS else None
            view = self.graph.view(node) if self.graph.plays(node, BatchNorm) else None
            return self._norm(view) if type(view) is BatchNorm and self.graph.source(node) is node else None
        except (Refusal, Misfit) as refusal:
            raise Unfit(str(refusal)) from None

    def _norm(self, view: BatchNorm) -> tuple[fx.Node, Layer]:
        affine, call = view.affine(), view.call
        scale, shift = (vector.flatten().to(view.tensors[0].dtype) for vector in (affine.scale, affine.shift))
        tensors = dict(zip(CONSTANTS, map(call.tensor, CONSTANTS), strict=True))
        plain = functools.partial(F.batch_norm, **tensors, eps=call.get("eps", 1e-5))
        norm = plain if call.module is None else call.module.forward
        ranks = call.operator.takes or (2, 3, 4, 5)
        return view.input, Layer("norm", call.path, scale, shift, norm=norm, ranks=ranks, copied=view.tensors)

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
        row = self.graph.row(node)
        make = None if row is None else ACTIVATIONS.get(row.name.rstrip("_"))
        if row is None or make is None:
            return None
        try:
            call = call_of(self.graph, node, row)
            return call.input, make(call)
        except (Refusal, TypeError, ValueError):  # hooks, or a number that is computed
            return None

    def is_idle(self, node: fx.Node) -> bool:
        """Whether a node gives back the very value that it gets: an identity, or dropout in evaluation mode."""
        try:
            view = self.graph.view(node) if self.graph.plays(node, Noop) else None
        except Refusal:
            return False
        return isinstance(view, Noop) and view.droppable

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
        family = family_of(self.graph, value, without)
        inside = all(member.op in _CALLS and not runs_user_code(self.graph, member) for member in family)
        return family if inside else None

    def sees_layout(self, node: fx.Node) -> bool:
        """Whether a node may depend on how its inputs lie in memory; what the table does not know may."""
        row = self.graph.row(node)
        if node.op not in _CALLS or asks_shape(node) or self.numbers.issuperset(node.all_input_nodes):
            return False
        if runs_user_code(self.graph, node):  # what it returns may hold tensors that nobody else finds
            return self.graph.layout.asks_in_code(node) or any(user.op == "output" for user in node.users)
        if row is None or row.asks in ("strides", "dense strides"):
            return True
        if issubclass(row.view, PixelShuffle):  # torch has it for images alone in every order
            rank = self.graph.rank(node)
            return rank is None or rank.axes != _IMAGES
        return issubclass(row.view, Noop) and row.name == "dropout" and not self.is_idle(node)

    @property
    def writes_through_views(self) -> bool:
        """Whether something may be written into memory that another value may share or not, by its order."""
        writers = [node for node in self.nodes if self.written(node)]
        for node in self.nodes if writers else ():
            row = self.graph.row(node)
            if row is not None and (row.result == "maybe view" or row.asks == "strides"):
                late = [writer for writer in writers if self.index[writer] > self.index[node]]
                family = (late and self.family(node, ())) or {node, *node.all_input_nodes}
                if any(not family.isdisjoint(self.written(writer)) for writer in late):
                    return True
        return any(map(self._may_write_into_others, self.nodes))

    def _may_write_into_others(self, node: fx.Node) -> bool:
        """Whether code of the user's gets a value of which another, read later, may be a view."""
        here = self.index[node]
        if node.op not in _CALLS or not runs_user_code(self.graph, node):
            return False
        views = {
            view for value in node.all_input_nodes for view in family_of(self.graph, value, ()) if view is not value
        }
        readers = (user for view in views if self.index.get(view, here) < here for user in view.users)
        return any(self.index.get(user, here) > here for user in readers)


def is_of_nn(module: Any) -> bool:
    """Whether a module is one of ``torch.nn``, of which the forward is all that it does."""
    return type(module).__module__.startswith("torch.nn.modules.")


def _without(idle: Collection[fx.Node], graph: Graph, graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph of the same modules without some nodes, in the place of which stands their input."""
    made, copied = dict[fx.Node, fx.Node](), fx.Graph()
    for node in graph.nodes:
        first = node.all_input_nodes[:1]
        made[node] = made[first[0]] if node in idle else copied.node_copy(node, made.__getitem__)
    copied.set_codegen(graph_module.graph._codegen)
    return fx.GraphModule(graph_module, copied, type(graph_module).__name__)


def _linear(view: Linear) -> tuple[fx.Node, Layer]:
    """Return what a convolution, transposed convolution or linear layer reads, and the layer."""
    call = view.call
    weight, bias = call.tensor("weight", required=True), call.tensor("bias")
    kind: Any = "transposed" if call.get("transposed") else _KINDS[call.operator.name]
    groups = 1 if kind == "linear" else call.get("groups", 1)
    channels = weight.shape[1] * groups if kind == "transposed" else weight.shape[0]
    mode, padding = call.get("padding_mode", "zeros"), call.get("padding")
    problems = {
        "its weight is computed at each call": bool(view.computed()),
        "its bias is no vector with a number for each channel": bias is not None and bias.shape != (channels,),
        "its padding is a word": isinstance(padding, str),
        f"it pads in the mode {mode!r}": mode != "zeros",
    }
    for problem in (problem for problem, found in problems.items() if found):
        raise Unfit(problem)
    defaults = {} if kind == "linear" else {"stride": 1, "padding": 0, "dilation": 1}
    defaults |= {"output_padding": 0} if kind == "transposed" else {}
    found: Any = {key: numbers(call.get(key, default), weight.ndim - 2) for key, default in defaults.items()}
    return view.input, Layer(kind, call.path, weight, bias, **found, groups=groups, copied=(weight,))
