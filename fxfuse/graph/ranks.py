"""The number of axes of a value: known from metadata, proven from the operations, or usual and assumed."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.graph.facts import Rank
from fxfuse.graph.nodes import UNTRACED
from fxfuse.graph.uses import asks_shape, first_operand, nodes_in, size_asked_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fxfuse.graph.facts import Facts
    from fxfuse.graph.registry import Operator

# Where the shape of a value in a run on example inputs is kept, among the metadata of its node.
EXAMPLE_SHAPE = "fxfuse_example_shape"
# Where a graph says what a value is.
DESCRIPTIONS = ("val", "tensor_meta", "example_value")
_MATRIX = 2  # axes
_POSSIBLE = range(1, 8)  # numbers of axes
_ANY = (0, 1 << 10)  # the least and the largest number of axes


def ranks(graph: Facts) -> dict[fx.Node, Rank]:
    """Return the number of axes of every value for which it is known or usual.

    What is proven goes first: from metadata and operations that fix it, forward and back.  Only then the rest is
    filled with what is usual: an image has a batch axis, the input of a linear layer is a batch of vectors.
    """
    return _Ranks(graph).all()


class _Ranks:
    """What is known of the axes of the values of one graph."""

    def __init__(self, graph: Facts) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.rows = {node: graph.row(node) for node in self.nodes}
        self.known: dict[fx.Node, int] = {}
        self._between: dict[fx.Node, tuple[int, int]] = {}  # the least and the largest number of axes
        self._alike: dict[fx.Node, list[fx.Node]] = {}
        # x.unsqueeze_(0): what is asked of x later is asked of another number of axes.
        self._reshaped = any((row is None or row.shape is None) and graph.mutated(n) for n, row in self.rows.items())

    def all(self) -> dict[fx.Node, Rank]:
        """Prove what can be proven, then fill in what is usual."""
        # Another run may take a way without what code that was not traced did in this one.
        nodes = [node for node in self.nodes if UNTRACED not in node.meta]
        for sweep in (nodes, nodes[::-1], nodes):
            for node in sweep:
                self._prove(node)
        proven = set(self.known)
        for node in self.nodes:
            # Shapes from shape propagation come from one example as well.
            shape = node.meta.get(EXAMPLE_SHAPE, getattr(node.meta.get("tensor_meta"), "shape", None))
            self._set(node, None if shape is None else len(shape))
        seen = set(self.known) - proven
        self._assume()
        known = proven | seen
        values = ((node, axes) for node, axes in self.known.items() if not self._is_tuple(node))
        return {node: Rank(axes, node not in known, node in seen) for node, axes in values}

    def _is_tuple(self, node: fx.Node) -> bool:
        """Whether a call gives a tuple, of which the first item or each part has the number of axes."""
        row = self.rows[node]
        return row is not None and (row.tuples or row.result == "parts")

    def _assume(self) -> None:
        """Fill in what is usual, but at least as many axes as a norm needs."""
        before = dict(self.known)
        self._assume_usual()
        too_few = {node: least for node, least in self._norms() if self.known.get(node, least) < least}
        if too_few:
            # The usual number of axes would be too few for the norm, so the layers before it have more.
            self.known = too_few | before
            for node in reversed(self.nodes):
                self._prove_inputs(node)
            self._assume_usual()
        for node in [node for node in reversed(self.nodes) if node not in self.known]:
            axes = {self._asked_by(user, node) for user in node.users if not asks_shape(user)}
            if len(axes) == 1:
                self._set(node, axes.pop())

    def _assume_usual(self) -> None:
        for node in self.nodes:
            row = self.rows[node]
            if node not in self.known and row is not None:
                self._set(node, self._from_inputs(node) or (None if row.spatial is None else row.spatial + 2))

    def _norms(self) -> Iterator[tuple[fx.Node, int]]:
        """Yield the inputs of norms, and how many axes these take at least."""
        for node in self.nodes:
            row, first = self.rows[node], first_operand(node)
            if row is not None and row.takes and first is not None:
                yield first, min(row.takes)

    def _asked_by(self, user: fx.Node, node: fx.Node) -> int | None:
        """Return the number of axes that the result of a user says the node has."""
        return self.known.get(user) if node in self._same_rank(user) else None

    def _set(self, node: fx.Node, axes: int | None) -> None:
        if axes is not None:
            self.known.setdefault(node, axes)

    def _prove(self, node: fx.Node) -> None:
        row = self.rows[node]
        first = first_operand(node)
        if first is not None and not self._reshaped:
            self._narrow(first, *self._demanded(node, row))
        asked, axis = (None, None) if self._reshaped else size_asked_for(node)
        if asked is not None and type(axis) is int:  # x.shape[3] raises for three axes
            self._narrow(asked, axis + 1 if axis >= 0 else -axis, _ANY[1])
        if node not in self.known:
            recorded = recorded_value(node) if node.meta else None
            self._set(node, self._from_inputs(node) if recorded is None else recorded.ndim)
        for other in self._same_rank(node):
            self._narrow(other, *self._between.get(node, _ANY))
            self._narrow(node, *self._between.get(other, _ANY))
        self._prove_inputs(node)

    def _demanded(self, node: fx.Node, row: Operator | None) -> tuple[int, int]:
        """Return the least and the largest number of axes of its first operand for which a call does not raise."""
        if node.target is operator.getitem:  # x[:, :, 1:] takes three axes or more
            index = node.args[1] if isinstance(node.args[1], tuple) else ()
            sliced = any(isinstance(item, slice) for item in index)
            return sum(type(item) in (slice, int) for item in index) if sliced else 0, _ANY[1]
        if row is None:
            return _ANY
        arguments = self._arguments(node, row) if row.axes else {}
        given = [arguments.get(name) for name in row.axes.split()]
        numbers = [axis for one in given for axis in (one if isinstance(one, (list, tuple)) else [one])]
        least = [axis + 1 if axis >= 0 else -axis for axis in numbers if type(axis) is int]
        return max([*least, min(row.takes, default=0)]), max(row.takes, default=_ANY[1])

    def _narrow(self, node: fx.Node, least: int, most: int) -> None:
        """Take into account between which numbers of axes no call raises; a single one is proven."""
        before = self._between.get(node, _ANY)
        found = self._between[node] = max(before[0], least), min(before[1], most)
        self._set(node, found[0] if found[0] == found[1] else None)

    def _prove_inputs(self, node: fx.Node) -> None:
        """Go back from a result to the inputs, where only one number of axes gives that of the result."""
        axes, row = self.known.get(node), self.rows[node]
        if axes is None or row is None:
            return
        for other in self._same_rank(node):
            self._set(other, axes)
        first = first_operand(node) if callable(row.rank) else None
        if callable(row.rank) and first is not None and first not in self.known:
            arguments, rank = self._arguments(node, row), row.rank
            found = [n for n in _POSSIBLE if rank(arguments, lambda value: n if value is first else None) == axes]  # noqa: B023 - called at once
            self._set(first, found[0] if len(found) == 1 else None)

    def _from_inputs(self, node: fx.Node) -> int | None:
        """Return the number of axes that the operation and its inputs prove."""
        row = self.rows[node]
        if row is None:
            return self.graph.tensor_rank(node) if node.op == "get_attr" else None
        known = [self.known[other] for other in self._same_rank(node) if other in self.known]
        if known:
            return known[0]
        if row.shape == "broadcast":
            axes = [self.known[operand] for operand in node.all_input_nodes if operand in self.known]
            return max(axes) if axes and len(axes) == len(node.all_input_nodes) else None
        return row.rank(self._arguments(node, row), self._axes) if callable(row.rank) else row.rank

    def _arguments(self, node: fx.Node, row: Operator) -> dict[str, Any]:
        """Return the arguments of a call by name; those of a module are its attributes."""
        module, passed = self.graph.module(node), row.passed(node)
        attributes = {} if module is None else vars(module)
        return {**passed, **{name: attributes[name] for name in row.names if name in attributes}}

    def _axes(self, value: object) -> int | None:
        """Return the number of axes of a value, as far as it is known by now."""
        return self.known.get(value) if isinstance(value, fx.Node) else None

    def _same_rank(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that have as many axes as the result; of a tuple, its first item or each part counts."""
        found = self._alike.get(node)
        if found is None:
            found, row = self._find_same_rank(node), self.rows[node]
            if found or row is None or row.shape != "linear":  # of which the weight may be known later
                self._alike[node] = found
        return found

    def _find_same_rank(self, node: fx.Node) -> list[fx.Node]:
        row = self.rows[node]
        if node.target is operator.getitem:
            whole = node.args[0]
            return [whole] if isinstance(whole, fx.Node) and self._is_like_whole(node, whole) else []
        if row is None or row.shape is None or (row.shape == "linear" and not self._has_matrix(node)):
            return []
        if row.shape == "broadcast":  # a number adds no axes
            return node.all_input_nodes if len(node.all_input_nodes) == 1 else []
        return nodes_in(node.args[0] if node.args else node.kwargs.get(row.names[0]))

    def _is_like_whole(self, item: fx.Node, whole: fx.Node) -> bool:
        """Whether an item of a tuple, or a part of a tensor, has as many axes as are known for the whole."""
        row, index = self.rows[whole], item.args[1]
        if row is not None and (row.tuples or row.result == "parts"):
            return not row.tuples or self.graph.source(item) is whole
        listed = index if isinstance(index, tuple) else (index,)
        return all(isinstance(i, slice) or i is Ellipsis for i in listed)

    def _has_matrix(self, node: fx.Node) -> bool:
        """Whether the weight of a linear function is no vector, which takes the last axis away."""
        if node.op == "call_module":
            return True
        weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        if not isinstance(weight, fx.Node):
            return False
        constant = weight in self.graph.constants and self.graph.tensor_rank(weight) == _MATRIX
        return constant or self.known.get(weight) == _MATRIX


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
