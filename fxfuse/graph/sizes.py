"""The sizes of the axes of values, as far as they are the same for every input."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from torch import fx

from fxfuse.graph.ranks import recorded_value
from fxfuse.graph.uses import first_operand, size_asked_for
from fxfuse.report.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fxfuse.graph.facts import Facts


class Sizes:
    """What is known of the sizes of the values of one graph; found out once, when somebody asks."""

    def __init__(self, graph: Facts) -> None:
        """Know the sizes of the values of ``graph``."""
        self.graph = graph
        self._known: dict[fx.Node, dict[int, int]] = {}

    def along(self, node: fx.Node, axis: int) -> int | None:
        """Return the size along an axis that is counted from the last (negative), if it is known."""
        return self.all(node).get(axis)

    def taken(self, node: fx.Node, axis: int) -> int | None:
        """Return the size along an axis that a reader takes, which raises for any other: a linear layer's inputs."""
        for user in self.graph.users(node):
            row, size = self.graph.row(user), None
            try:
                view: Any = self.graph.view(user)
                if hasattr(view, "taken_sizes") and view.input is node:
                    size = view.taken_sizes().get(axis)
            except Refusal:
                continue
            if size is None and row is not None and row.shape == "same" and first_operand(user) is node:
                size = self.taken(user, axis)
            if size is not None:
                return size
        return None

    def all(self, node: fx.Node) -> dict[int, int]:
        """Return the sizes that are known, by axes that are counted from the last (negative)."""
        if not self._known:  # a sweep, so that nothing has to go back far
            for before in self.graph.nodes:
                self._known[before] = self._find(before)
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def forget(self, node: fx.Node) -> None:
        """Find out the sizes of a value again, when somebody asks."""
        self._known.pop(node, None)

    def of(self, node: fx.Node) -> tuple[int | None, ...]:
        """Return the sizes of all axes, None where they are not known; nothing where their number is not known."""
        value = recorded_value(node)
        if value is not None:
            return tuple(_number(size) for size in value.shape)
        rank = self.graph.rank(node)
        known = rank.axes if rank is not None and rank.proven else 0
        return tuple(self.along(node, axis) for axis in range(-known, 0))

    def _find(self, node: fx.Node) -> dict[int, int]:
        value = recorded_value(node)
        if value is not None:
            sizes = [(axis - value.ndim, _number(size)) for axis, size in enumerate(value.shape)]
            return {axis: size for axis, size in sizes if size is not None}
        try:
            view = self.graph.view(node)
            return self._from_inputs(node) if view is None else dict(view.known_sizes())
        except Refusal:
            return {}

    def _from_inputs(self, node: fx.Node) -> dict[int, int]:
        """Return what is known behind operations that play no role."""
        row = self.graph.row(node)
        if row is not None and row.shape == "broadcast" and len(node.all_input_nodes) > 1:
            return self.together(node.all_input_nodes)  # one operand may enlarge the other along axes of size one
        before = self._input_of_same_shape(node)
        return {} if before is None else self.all(before)

    def _input_of_same_shape(self, node: fx.Node) -> fx.Node | None:
        """Return the input of which the result has the shape."""
        row = self.graph.row(node)
        if row is not None and row.shape == "broadcast" and len(node.all_input_nodes) == 1:
            return node.all_input_nodes[0]
        return first_operand(node) if row is not None and row.shape == "same" else None

    def together(self, operands: Iterable[fx.Node]) -> dict[int, int]:
        """Return the sizes of values that are broadcast against each other, but for those that may be larger."""
        return {axis: size for operand in operands for axis, size in self.all(operand).items() if size > 1}

    def label(self, node: fx.Node, axis: int) -> object:
        """Return what identifies a size: the number, the symbol, or whose axis it is."""
        value = recorded_value(node)
        if value is not None:
            number = _number(value.shape[axis])
            return str(value.shape[axis]) if number is None else number
        same = self._all_of_same_shape(node)
        if any(self._may_reshape(user, value) for value in same for user in value.users):
            return None
        known = self.of(node)
        return known[axis] if known[axis] is not None else self._label_before(same[-1], axis, len(known))

    def _label_before(self, node: fx.Node, axis: int, rank: int) -> object:
        """Return the label of an axis that an operation only moves, or gives a size that it is asked for."""
        try:
            view: Any = self.graph.view(node)
            label = view.label_of(axis, rank) if hasattr(view, "label_of") else None
        except Refusal:
            label = None
        return (node, axis) if label is None else label

    def _may_reshape(self, user: fx.Node, value: fx.Node) -> bool:
        """Whether a node may give a value another shape in place, at whatever time."""
        row = self.graph.row(user)
        return (row is None or row.shape is None) and value in self.graph.mutated(user)

    def _all_of_same_shape(self, node: fx.Node) -> list[fx.Node]:
        """Return the value and those of the same shape before it, back to the first."""
        found = [node]
        while (before := self._input_of_same_shape(found[-1])) is not None:
            found.append(before)
        return found

    def asked(self, size: object) -> object:
        """Return the label of a size that the model asks for, as ``x.shape[0]``; None for the unknown."""
        if isinstance(size, int):
            return None if size < 0 else size
        if not isinstance(size, fx.Node):
            return None
        if size.target in _COMPUTED:
            operands = [self.asked(operand) for operand in size.args]
            numbers = [operand for operand in operands if isinstance(operand, int)]
            return _COMPUTED[size.target](*numbers) if len(numbers) == len(operands) and numbers[-1] else None
        base, axis = size_asked_for(size)
        known = self.of(base) if base is not None else ()
        if base is None or not isinstance(axis, int) or not -len(known) <= axis < len(known):
            return None
        return self.label(base, axis % len(known))


def _number(size: object) -> int | None:
    return size if isinstance(size, int) else None  # a symbol is no number


# What models compute with sizes, as far as all are numbers.
_COMPUTED: dict[Any, Any] = {operator.mul: operator.mul, operator.floordiv: operator.floordiv}
