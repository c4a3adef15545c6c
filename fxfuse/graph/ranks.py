"""The number of axes of a value: known from metadata, proven from the operations, or usual and assumed."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse.graph.facts import Rank
from fxfuse.graph.rank_tables import ARITHMETIC, checked_rank, keeps_rank, usual_rank
from fxfuse.graph.uses import first_operand
from fxfuse.modules.guards import require_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fxfuse.graph.facts import Facts


_GIVE_PARTS = (torch.split, torch.chunk, "split", "chunk", "split_with_sizes", torch.split_with_sizes)

# Where the shape of a value in a run on example inputs is kept, among the metadata of its node.
EXAMPLE_SHAPE = "fxfuse_example_shape"


# Where a graph says what a value is.
DESCRIPTIONS = ("val", "tensor_meta", "example_value")


def ranks(graph: Facts) -> dict[fx.Node, Rank]:
    """Return the number of axes of every value for which it is known or usual.

    What is proven goes first: forward from metadata and operations that fix it, and back from a norm that checks
    it to the convolution before.  Only then the rest is filled with what is usual: an image has a batch axis, the
    input of a linear layer is a batch of vectors.
    """
    return _Ranks(graph).all()


class _Ranks:
    """What is known of the axes of the values of one graph."""

    def __init__(self, graph: Facts) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.modules = {node: graph.module(node) for node in self.nodes}
        self.called = {node: graph.called(node) for node in self.nodes}
        self.known: dict[fx.Node, int] = {}
        self._same: dict[fx.Node, list[fx.Node]] = {}

    def all(self) -> dict[fx.Node, Rank]:
        """Prove what can be proven, then fill in what is usual."""
        for sweep in (self.nodes, list(reversed(self.nodes)), self.nodes):
            for node in sweep:
                self._prove(node)
        proven = set(self.known)
        for node in self.nodes:
            # What a propagation of shapes left is that of one example too.
            shape = node.meta.get(EXAMPLE_SHAPE, getattr(node.meta.get("tensor_meta"), "shape", None))
            self._set(node, None if shape is None else len(shape))
        seen = set(self.known) - proven
        for node in self.nodes:
            self._usual_flatten(node)
        for node in self.nodes:
            if node not in self.known:
                self._set(node, self._from_inputs(node) or usual_rank(self.called[node]))
        for node in self.nodes:
            self._usual_before(node)
        known = proven | seen
        return {node: Rank(axes, node not in known, node in seen) for node, axes in self.known.items()}

    def _usual_flatten(self, node: fx.Node) -> None:
        """Batch and sequence become one axis before a norm over vectors."""
        flattens = node.target in (torch.flatten, "flatten") and _flatten_arguments(node) == (0, 1)
        if flattens and node not in self.known and node.all_input_nodes[0] not in self.known:
            self._set(node.all_input_nodes[0], 3)
            self._set(node, 2)

    def _usual_before(self, node: fx.Node) -> None:
        """A norm of vectors is usual before a linear layer."""
        first = node.args[0] if node.args else None
        if isinstance(self.modules[node], nn.BatchNorm1d) and isinstance(first, fx.Node) and first not in self.known:
            readers = list(node.users)
            while len(readers) == 1 and isinstance(self.modules[readers[0]], (nn.Identity, nn.Dropout)):
                readers = list(readers[0].users)
            if readers and all(isinstance(self.modules[reader], nn.Linear) for reader in readers):
                self._set(first, 2)

    def _set(self, node: fx.Node, axes: int | None) -> None:
        if axes is not None:
            self.known.setdefault(node, axes)

    def _prove(self, node: fx.Node) -> None:
        if node not in self.known:
            self._set(node, _recorded(node) or self._fixed(node) or self._from_inputs(node))
        for other in self._of_same_rank(node) if node in self.known else ():
            self._set(other, self.known[node])

    def _fixed(self, node: fx.Node) -> int | None:
        """Return the number of axes where the operation alone says it."""
        called, module = self.called[node], self.modules[node]
        if node.op == "get_attr":
            return self.graph.tensor_rank(node)
        if isinstance(called, type):
            flatten = isinstance(module, nn.Flatten) and called is nn.Flatten
            return _flattened(module.start_dim, module.end_dim) if flatten else checked_rank(called)  # type: ignore[union-attr] # not None
        if called in (torch.mm, torch.addmm):
            return 2
        if called is require_rank:
            return node.args[1] if isinstance(node.args[1], int) else None
        if called in ("permute", torch.permute):
            return _permuted(node)
        return _reshaped(node) if called in (torch.flatten, "flatten", "view", "reshape") else None

    def _keeps(self, node: fx.Node) -> bool:
        """Whether the result has as many axes as the first input; a vector as weight takes one away."""
        weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        called = self.called[node]
        return keeps_rank(called) and (called is not F.linear or self._is_matrix(weight))

    def _is_matrix(self, weight: object) -> bool:
        if not isinstance(weight, fx.Node):
            return False
        return 2 in (self.known.get(weight), self.graph.tensor_rank(weight) if weight in self.graph.constants else None)

    def _of_same_rank(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that have as many axes as the result."""
        if node in self._same:
            return self._same[node]
        found = self._find_same(node)
        if self.called[node] is not F.linear:  # of which the weight may be known later
            self._same[node] = found
        return found

    def _find_same(self, node: fx.Node) -> list[fx.Node]:
        called, first = self.called[node], first_operand(node)
        if called in (torch.cat, torch.concat, torch.concatenate):
            listed: Any = node.args[0] if node.args else node.kwargs.get("tensors")
            return [part for part in listed if isinstance(part, fx.Node)] if isinstance(listed, (list, tuple)) else []
        if called is operator.getitem and first is not None:
            whole = first_operand(first) or first.kwargs.get("tensor")
            if self.called[first] in _GIVE_PARTS:
                return [whole] if isinstance(whole, fx.Node) else []
            index = node.args[1] if isinstance(node.args[1], tuple) else node.args[1:]
            return [first] if all(isinstance(item, slice) or item is Ellipsis for item in index) else []
        return [first] if first is not None and self._keeps(node) else []

    def _from_inputs(self, node: fx.Node) -> int | None:
        called, same = self.called[node], self._of_same_rank(node)
        if same:
            return next((self.known[other] for other in same if other in self.known), None)
        if called in ARITHMETIC:
            axes = [self.known.get(i) for i in node.all_input_nodes]
            return max(a for a in axes if a is not None) if axes and None not in axes else None
        if called in ("reshape_as", "view_as", "expand_as"):
            return self.known.get(node.all_input_nodes[-1])
        flattens = called in (torch.flatten, "flatten", nn.Flatten)
        return self._after_flatten(node) if flattens else self._after_mean(node)

    def _after_flatten(self, node: fx.Node) -> int | None:
        """Return what is left of the axes of the input, where it says how many are merged."""
        module = self.modules[node]
        start, end = (module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) else _flatten_arguments(node)
        before = self.known.get(node.all_input_nodes[0])
        if not before or not isinstance(start, int) or not isinstance(end, int):
            return None
        return before - (end % before - start % before)

    def _after_mean(self, node: fx.Node) -> int | None:
        if self.called[node] not in (torch.mean, "mean"):
            return None
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        before = self.known.get(node.all_input_nodes[0])
        if before is None or dims in (None, (), []) or not isinstance(keep, bool):
            return None
        return before if keep else before - (len(dims) if isinstance(dims, (list, tuple)) else 1)


def _recorded(node: fx.Node) -> int | None:
    value = recorded_value(node)
    return None if value is None else value.ndim


def recorded_dtype(node: fx.Node) -> torch.dtype | None:
    """Return the dtype of a value, where the graph says it."""
    return getattr(_description(node), "dtype", None)


def is_size(node: fx.Node) -> bool:
    """Whether a node computes with sizes, in graphs of torch.export, and not with values."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, int, float))


def recorded_value(node: fx.Node) -> Tensor | None:
    """Return a tensor without values that has the shape and dtype of a value, where the graph has one."""
    values = (node.meta.get(key) for key in ("val", "example_value"))
    return next((value for value in values if isinstance(value, Tensor)), None)


def _description(node: fx.Node) -> object:
    # Graphs of torch.export, of shape propagation, and of Dynamo.
    return next((node.meta[key] for key in DESCRIPTIONS if key in node.meta), None)


def _permuted(node: fx.Node) -> int | None:
    """Return the number of axes that ``permute`` names."""
    dims: Any = node.kwargs.get("dims", node.args[1] if len(node.args) == 2 else node.args[1:])
    return len(dims) if isinstance(dims, (list, tuple)) else None


def _reshaped(node: fx.Node) -> int | None:
    """Return the number of axes after ``flatten``, ``view`` or ``reshape``."""
    if node.target in (torch.flatten, "flatten"):
        return _flattened(*_flatten_arguments(node))
    sizes: Sequence[object] = node.args[1:]
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    # A single node can be a size or a whole shape.
    return len(sizes) if len(sizes) > 1 else None


def _flatten_arguments(node: fx.Node) -> tuple[object, object]:
    start, end = (*node.args[1:], *(0, -1)[len(node.args) - 1 :])[:2]
    return node.kwargs.get("start_dim", start), node.kwargs.get("end_dim", end)


def _flattened(start: object, end: object) -> int | None:
    """Everything from ``start`` on becomes one axis."""
    return start + 1 if isinstance(start, int) and start >= 0 and end == -1 else None
