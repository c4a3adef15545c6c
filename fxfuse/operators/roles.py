"""The three roles that an operation can play, each with the law that its views keep."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import fx

from fxfuse.algebra.filters import Filter
from fxfuse.algebra.geometry import Geometry, Misfit
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fxfuse.algebra.affine import Affine
    from fxfuse.algebra.linear_map import LinearMap
    from fxfuse.graph.call import Call
    from fxfuse.graph.facts import Rank
    from fxfuse.graph.plan import Write

LARGEST = 1 << 20  # elements of the constants of a fold


class View:
    """A call seen in one role, the same in every form of graph."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def matches(self) -> bool:
        """Whether the call really plays this role; arithmetic does only with a constant."""
        return True

    @property
    def node(self) -> fx.Node:
        """The node of the call."""
        return self.call.node

    @property
    def input(self) -> fx.Node:
        """The value that the call transforms."""
        return self.call.input

    @property
    def inputs(self) -> list[fx.Node]:
        """The values that an affine can come from; what else is read (a weight, a dtype) has another meaning."""
        return [self.input]

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sizes of the result that are the same for every input, by axes counted from the last."""
        return {}

    def sizes_before(self) -> Mapping[int, int]:
        """Return the same of the input."""
        return self.call.graph.sizes.all(self.input)

    def require_axes(self, value: fx.Node) -> int:
        """Return the number of axes of a value, if no input can have another one."""
        rank = self.call.rank(value)
        if rank is None or not rank.proven:
            detail = "not known" if rank is None else "only usual, or only seen"
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self.call.graph.describe(value), detail=detail)
        self.require(rank.axes > 0)
        return rank.axes

    def from_last(self, axis: Any, *, new: bool = False) -> int:
        """Return an axis of the input, or a ``new`` one of the result, counted from the last."""
        self.require(isinstance(axis, int))
        return int(axis) if axis < 0 else axis - self.require_axes(self.input) - new

    def require_axes_of_result(self) -> int:
        """Return the number of axes of the result; an assumed one will do if only a norm reads it that checks it."""
        rank, readers = self.call.rank(self.node), self.call.graph.users(self.node)
        row = self.call.graph.operator(readers[0]) if len(readers) == 1 else None
        checked = row is not None and issubclass(row.view, AffineSource) and row.view.leaves_check
        return rank.axes if rank is not None and checked else self.require_axes(self.node)

    def require_size(self, value: fx.Node, axis: int) -> int:
        """Return the size of a value along an axis counted from the last, if it is the same for every input."""
        size = self.call.graph.sizes.along(value, axis)
        if size is None:
            raise Refusal(Reason.UNKNOWN_SIZE, value=self.call.graph.describe(value), detail=f"axis {axis}")
        return size

    def require_small(self, count: int) -> None:
        """Refuse constants of so many elements: they must not grow to the size of the values."""
        require(count <= LARGEST, Reason.WOULD_GROW, value=self.call.path, detail=f"to {count:,} elements")

    def require(self, condition: bool) -> None:  # noqa: FBT001 - reads as a sentence
        """Refuse what does not pass here."""
        if not condition:
            raise Refusal(Reason.NOT_LINEAR, value=self.call.path)


class Linear(View):
    """A convolution, transposed convolution or linear layer: ``call(x)`` is ``linear_map()`` applied to ``x``.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import Graph
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 5))))
        >>> graph.view(graph.nodes[1]).linear_map().kernel.shape
        torch.Size([1, 8, 3, 5, 5])
    """

    @property
    @abstractmethod
    def output_axis(self) -> int:
        """The axis of the output channels, counted from the last (negative)."""

    @property
    def input_axis(self) -> int:
        """The axis of the input channels, counted from the last (negative)."""
        return self.output_axis

    @property
    @abstractmethod
    def reads_zeros(self) -> bool:
        """True if the layer pads its input with zeros: a shift cannot be folded through such padding."""

    @abstractmethod
    def linear_map(self) -> LinearMap:
        """Return the weights as a linear map."""

    @abstractmethod
    def with_map(self, linear_map: LinearMap) -> Write:
        """Return the edit that gives the call these weights, rounded once into the dtype that it has."""

    def geometry(self) -> Geometry:
        """Return where the taps of the kernel lie; without that it is no part of a merge."""
        raise Misfit("it does not tell its geometry")

    def filter(self) -> Filter:
        """Return all that it does to its input."""
        return Filter(self.linear_map(), self.geometry())

    def with_filter(self, merged: Filter) -> Write:
        """Return the edit that lets the call do what ``merged`` does, rounded once into the dtype that it has."""
        return self.with_map(merged.linear_map)

    def computed(self) -> dict[str, fx.Node]:
        """Return the weight and bias that are computed from constants before each call."""
        passed = {name: self.call.arguments.get(name) for name in ("weight", "bias")}
        constants = self.call.graph.constants
        return {n: v for n, v in passed.items() if isinstance(v, fx.Node) and v.op != "get_attr" and v in constants}

    def known_sizes(self) -> Mapping[int, int]:
        """Return the number of channels."""
        return {self.output_axis: self.linear_map().out_channels}

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weight as it is stored now."""


class AffineSource(View):
    """An operation with ``call(x) == affine()(x)``, or the same of the bare normalisation of ``x``.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import Graph
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.BatchNorm2d(8)).eval()))
        >>> graph.view(graph.nodes[1]).affine().scale.shape
        torch.Size([8, 1, 1])

    Attributes:
        gives_order: the result is contiguous, whatever the strides of the input.
        is_norm: it normalises: the report has a line for it if it stays. False by default.
        leaves_check: where its meaning hangs on an unproven number of axes, a fold leaves a check of that.
    """

    gives_order: ClassVar[bool] = False
    is_norm: ClassVar[bool] = False
    leaves_check: ClassVar[bool] = False

    @abstractmethod
    def affine(self) -> Affine:
        """Return the affine, in float64."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The constants the affine was made of, for checks of dtype and device."""
        return ()

    def known_sizes(self) -> Mapping[int, int]:
        """Return those of the input."""
        return self.sizes_before()

    @property
    def promotes(self) -> bool:
        """Whether the result has the wider dtype of value and constants, and not that of the value."""
        return False

    @property
    def leaves_nothing(self) -> bool:
        """Whether nothing is left of the operation without the affine."""
        return self.without_affine() is None

    @property
    def may_move_downstream(self) -> bool:
        """Whether the affine may move into what follows."""
        return True

    def without_affine(self) -> Write | None:
        """Return the edit that leaves the bare normalisation, None where nothing is left."""
        return None

    @property
    def unproven_rank(self) -> Rank | None:
        """The number of axes of the input, where the affine hangs on it and another input could have another one."""
        return None


class Carrier(View):
    """What an affine can pass: ``affine(call(x)) == call(pulled(x))``, and ``call(affine(x)) == pushed(call(x))``.

    Example:
        >>> import torch
        >>> from torch import fx, nn
        >>> from fxfuse.extend import Affine, Graph
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.ReLU())))
        >>> [(value, pulled)] = graph.view(graph.nodes[1]).pull(Affine(torch.tensor(2.0), torch.tensor(0.0), False))
        >>> value, pulled.scale  # 2 * relu(x) == relu(2 * x)
        (input_1, tensor(2.))

    Attributes:
        gives_view: the result may lie in memory in another way than a new value would.
        repeats_memory: several elements of the result may be one in memory.
    """

    gives_view: ClassVar[bool] = False
    repeats_memory: ClassVar[bool] = False

    @property
    def reader(self) -> fx.Node:
        """The node that reads the inputs, where several nodes are one operation."""
        return self.node

    @abstractmethod
    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Return what the inputs must become, so that the output comes out as ``affine`` of what it was."""

    @abstractmethod
    def push(self, affine: Affine, source: fx.Node) -> Affine:
        """Return what happens to the output when the input ``source`` becomes ``affine`` of what it was."""
