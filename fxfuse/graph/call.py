"""A node seen through the names of its arguments, whichever way it calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.algebra.running_norms import TENSORS, is_plain
from fxfuse.graph.nodes import UNTRACED
from fxfuse.graph.registry import Operator, operator_of, row_at
from fxfuse.modules.lookup import is_hooked, is_quantized
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.graph.facts import Facts, Rank


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a known operator.

    Attributes:
        node: where it stands in the graph.
        operator: the row of the table.
        arguments: what was passed, by name; for a module, its attributes.
        graph: the graph it is part of.
        module: the module that is called, or None for functions and methods.
    """

    node: fx.Node
    operator: Operator
    arguments: Mapping[str, Any]
    graph: Facts
    module: nn.Module | None = None

    @property
    def path(self) -> str:
        """Where the user finds it."""
        return self.graph.path(self.node)

    def __str__(self) -> str:
        """Return its path, for a sentence."""
        return self.path

    @property
    def input(self) -> fx.Node:
        """The value that is transformed: the argument ``input``, or the first one where none has that name."""
        name = "input" if "input" in self.operator.arguments else self.operator.arguments[0]
        value = self.arguments.get(name)
        if not isinstance(value, fx.Node):
            raise Refusal(Reason.COMPUTED, name=name, value=self.path)
        return value

    def require_one_result(self) -> None:
        """Refuse a call that gives a tuple of which more than the first item is used."""
        source = self.graph.source(self.node)
        if source is self.node:
            return
        others = [user for user in source.users if user is not self.node]
        require(not others, Reason.SEVERAL_USES, value=self.path, users=self.graph.names(others))

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, or its default where it was not passed."""
        return self.arguments.get(name, default)

    def rank(self, value: fx.Node) -> Rank | None:
        """Return the number of axes of a value, if it is known or may be assumed."""
        return self.graph.rank(value)

    def tensor(self, name: str, *, required: bool = False, whole: bool = False) -> Any:
        """Return the constant tensor behind an argument, or None where nothing was passed.

        Args:
            name: the argument.
            required: whether it must be there.
            whole: whether its numbers may be whole: arithmetic makes floats of them.

        Raises:
            Refusal: if it is computed from the input, changed in place, or not a plain floating-point tensor.
        """
        value = self.arguments.get(name)
        constants = self.graph.constants
        if isinstance(value, fx.Node):
            value = constants.value(value, name=name, of=self.path)
        if value is None and required:
            raise Refusal(Reason.COMPUTED, name=name, value=self.path)
        if isinstance(value, Tensor):
            constants.require_unchanged(value, name=name, of=self)
            require_plain(value.float() if whole and value.dtype in _WHOLE else value, name=name, value=self)
        return value


_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require_plain(tensor: Tensor, **facts: object) -> None:
    """Refuse what is not an ordinary real floating-point tensor with values."""
    if not is_plain(tensor):
        kind = tensor.dtype if type(tensor) in TENSORS else type(tensor).__name__
        raise Refusal(Reason.NOT_FLOATING, dtype=kind, **facts)
    if tensor.is_meta:
        raise Refusal(Reason.NO_VALUES, **facts)


def refusal_of(graph: Facts, node: fx.Node, reason: Reason) -> Refusal:
    """Return the refusal of a node that takes in no affine: it is quantized, or the given reason holds."""
    value = graph.describe(node)
    if is_quantized(graph.module(node)):
        return Refusal(Reason.NOT_FLOATING, name="weight", value=value, dtype="quantized")
    if UNTRACED not in graph.source(node).meta:
        return Refusal(reason, value=value)
    row, value = row_at(node), f"{value} (in code that was not traced)"
    linear = row is not None and hasattr(row.view, "linear_map")  # a convolution whose weights that code reads
    return Refusal(Reason.OWN_FORWARD if linear else reason, value=value)


def operator_at(node: fx.Node, module: nn.Module | None) -> Operator | None:
    """Return the row of the table for what a node calls: a module, a function or a method that plays a role."""
    if module is not None:
        return operator_of(module)
    row = row_at(node)
    return row if row is not None and row.plays else None


def call_of(graph: Facts, node: fx.Node, operator: Operator) -> Call:
    """Return the call that a node makes, with its arguments by name.

    Raises:
        Refusal: if the module called has hooks.
    """
    source = graph.source(node)
    unknown = source.kwargs.keys() - set(operator.names) if source.kwargs else ()
    if unknown:  # NumPy's names (axis, keepdims) are taken by torch too, and would be missed
        raise Refusal(Reason.NOT_LINEAR, value=graph.path(node))
    module = graph.module(node)
    if module is None:
        return Call(node, operator, operator.passed(source), graph)
    if is_hooked(module):
        raise Refusal(Reason.HOOKED, value=graph.path(node))
    first, *others = operator.arguments
    attributes = {name: value for name in others if (value := _attribute(module, name)) is not _ABSENT}
    attributes[first] = node.args[0] if node.args else node.kwargs.get(first)
    return Call(node, operator, attributes, graph, module)


_ABSENT = object()


def _attribute(module: nn.Module, name: str) -> Any:
    own = module.__dict__  # torch's own look-up of a parameter or buffer costs ten times as much
    for registry in (own["_parameters"], own["_buffers"]):
        if name in registry:
            return registry[name]
    value = own[name] if name in own else getattr(module, name, _ABSENT)
    # A weight that is a plain attribute is computed by something (pruning, weight norm) before each call.
    if isinstance(value, Tensor):
        raise Refusal(Reason.COMPUTED, name=name, value=type(module).__name__)
    return value
