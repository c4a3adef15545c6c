"""A node seen through the names of its arguments, whichever way it calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, fx, nn

from fxfuse.constants import TENSORS, is_plain
from fxfuse.operator_table import OPERATORS, Operator, operator_of
from fxfuse.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fxfuse.cost import Cost
    from fxfuse.graph import Graph
    from fxfuse.shapes import Rank


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
    graph: Graph
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

    def tensor(self, name: str, *, required: bool = False) -> Any:
        """Return the constant tensor behind an argument, or None where nothing was passed.

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
            require_plain(value, name=name, value=self)
        return value


def require_plain(tensor: Tensor, **facts: object) -> None:
    """Refuse what is not an ordinary real floating-point tensor with values."""
    if not is_plain(tensor):
        kind = tensor.dtype if type(tensor) in TENSORS else type(tensor).__name__
        raise Refusal(Reason.NOT_FLOATING, dtype=kind, **facts)
    if tensor.is_meta:
        raise Refusal(Reason.NO_VALUES, **facts)


@dataclass(frozen=True)
class Write:
    """An edit: this call gets these tensors; what is not named stays.

    Attributes:
        call: the call.
        constants: the new tensors, in the layout in which they are stored; None takes one away.
        through: operations that stay between what is stored and the call: the permutation of a weight, by argument.
        target: another function to call, where the present one has no argument for a bias; None to keep it.
        attributes: what else changes on a module, or of the arguments of a function.
        trains: some of the weights that went into these are to be trained.
    """

    call: Call
    constants: Mapping[str, Tensor | None]
    through: Mapping[str, fx.Node] = field(default_factory=dict)
    target: Callable[..., Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = False

    def after(self, earlier: Write) -> Write:
        """Return the edit that is an earlier one of the same call, and then this one."""
        constants, attributes = {**earlier.constants, **self.constants}, {**earlier.attributes, **self.attributes}
        through, target = {**earlier.through, **self.through}, self.target or earlier.target
        return Write(self.call, constants, through, target, attributes, self.trains or earlier.trains)


@dataclass(frozen=True)
class Plan:
    """A whole rewrite, computed and checked before the first write.

    Attributes:
        writes: new constants of calls.
        bypass: pairs of a node that goes and the value that its users read instead, in the order of removal.
        stripped: calls that lost their affine, and stay.
        onwards: values between are others now: an affine went into what follows, or layers became one.
        dropped: what is computed no longer, from the last to the first.
        merge: what a merge makes of the operations that it removes, or None.
        parts: values that become parts of what the first written call gives.
        guard: the number of axes to check, or None.
        guarded: the bypassed node in whose place it is checked; None for the last.
        assumed: that number is only usual.
    """

    writes: tuple[Write, ...] = ()
    bypass: tuple[tuple[fx.Node, fx.Node], ...] = ()
    guard: int | None = None
    assumed: bool = False
    guarded: fx.Node | None = None
    stripped: tuple[fx.Node, ...] = ()
    onwards: bool = False
    dropped: tuple[fx.Node, ...] = ()
    merge: Merge | None = None
    parts: tuple[Part, ...] = ()


class Part(NamedTuple):
    """A value that becomes a part of another one.

    Attributes:
        node: the value.
        axis: the axis along which it is a part, counted from the last.
        start: where it begins there.
        length: how long it is there.
    """

    node: fx.Node
    axis: int
    start: int
    length: int


@dataclass(frozen=True)
class Merge:
    """What is told of a merge.

    Attributes:
        start: the value that all of them are computed from, with as many axes as what they give.
        result: the value that the layer gives from now on.
        gone: the operations that went into another one.
        before: what all of them cost.
        after: what the one costs that is left.
    """

    start: fx.Node
    result: fx.Node
    gone: tuple[fx.Node, ...]
    before: Cost
    after: Cost


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Torch changes these dictionaries, and never exchanges them.
_GLOBAL_HOOKS = [getattr(nn.modules.module, "_global" + name) for name in _HOOKS]


def is_hooked(module: nn.Module) -> bool:
    """Whether something else looks at the inputs or outputs of the module."""
    return any(_GLOBAL_HOOKS) or any(map(module.__dict__.get, _HOOKS))


def operator_at(node: fx.Node, module: nn.Module | None) -> Operator | None:
    """Return the row of the table for what a node calls: a module, a function or a method."""
    if module is not None:
        return operator_of(module)
    if node.op in ("call_function", "call_method"):
        return OPERATORS.get(node.target)
    return None


def read(graph: Graph, node: fx.Node, operator: Operator) -> Call:
    """Read a node through the names of its arguments.

    Raises:
        Refusal: if the module called has hooks.
    """
    source = graph.source(node)
    unknown = source.kwargs.keys() - set(operator.arguments) if source.kwargs else ()
    if unknown:  # NumPy's names (axis, keepdims) are taken by torch too, and would be missed
        raise Refusal(Reason.NOT_LINEAR, value=graph.path(node))
    module = graph.module(node)
    if module is None:
        passed = {**dict(zip(operator.arguments, source.args, strict=False)), **source.kwargs}
        return Call(node, operator, passed, graph)
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
