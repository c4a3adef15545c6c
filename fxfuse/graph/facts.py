"""What operators and the tables of this folder may ask of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import fx, nn

    from fxfuse.algebra.running_norms import RunningNorms
    from fxfuse.graph.constants import Constants
    from fxfuse.graph.registry import Operator


class Rank(NamedTuple):
    """A number of axes.

    Attributes:
        axes: the number.
        assumed: it is only usual (inputs are batched).
        seen: it was seen on example inputs; another input may have another number.
        or_more: the value may have more axes, and the fold is right for these too.
    """

    axes: int
    assumed: bool = False
    seen: bool = False
    or_more: bool = False

    @property
    def proven(self) -> bool:
        """Whether no input can have another number."""
        return not self.assumed and not self.seen


class NodeView(Protocol):
    """A node in one of the roles of ``operators/roles.py``."""

    @property
    def node(self) -> fx.Node:
        """The node."""

    @property
    def input(self) -> fx.Node:
        """The value that it transforms."""

    @property
    def inputs(self) -> list[fx.Node]:
        """The values that an affine can come from."""

    def matches(self) -> bool:
        """Whether the node really plays this role."""

    def known_sizes(self) -> Mapping[int, int]:
        """Return the sizes of the result that are the same for every input, by axes counted from the last."""


class SizeFacts(Protocol):
    """The sizes of values that are the same for every input; axes are counted from the last."""

    def along(self, node: fx.Node, axis: int) -> int | None:
        """Return the size along an axis, if it is known."""

    def all(self, node: fx.Node) -> dict[int, int]:
        """Return the sizes that are known, by axis."""

    def of(self, node: fx.Node) -> tuple[int | None, ...]:
        """Return the size of every axis, None for an unknown one; empty if the number of axes is not known."""

    def together(self, operands: Iterable[fx.Node]) -> dict[int, int]:
        """Return the sizes of values that are broadcast against each other."""

    def asked(self, size: object) -> object:
        """Return what identifies a size that the model asks for, None for the unknown."""

    def label(self, node: fx.Node, axis: int) -> object:
        """Return what identifies the size of a value along an axis."""


class Facts(Protocol):
    """The questions that a view may ask; ``Graph`` answers them, and a test can fake it.

    Attributes:
        prefix: the path of the captured module in the user's model.
        constants: values that depend on parameters alone.
        running_norms: scale and shift of the batch norms of the graph.
        sizes: sizes of values.
    """

    prefix: str
    constants: Constants
    running_norms: RunningNorms

    @property
    def sizes(self) -> SizeFacts:
        """The sizes of values."""

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes in order."""

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""

    def row(self, node: fx.Node) -> Operator | None:
        """Return the row of the table for what a node calls, also if it plays no role."""

    def operator(self, node: fx.Node) -> Operator | None:
        """Return the row of the table for what a node calls, if it plays a role."""

    def view(self, node: fx.Node) -> NodeView | None:
        """Return a node in its role, or None if it plays none that is known."""

    def plays(self, node: fx.Node, role: type[Any]) -> bool:
        """Whether a node may play a role, without reading its arguments."""

    def source(self, node: fx.Node) -> fx.Node:
        """Return the call of which a node takes the first result, or the node."""

    def users(self, node: fx.Node) -> list[fx.Node]:
        """Return who uses the values of a node, once for each use."""

    def rank(self, node: fx.Node) -> Rank | None:
        """Return the number of axes of a value, if it is known or usual."""

    def tensor_rank(self, node: fx.Node) -> int | None:
        """Return the number of axes of what a node reads, or computes from parameters alone."""

    def mutated(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that a node changes in place."""

    def path(self, node: fx.Node) -> str:
        """Return where the user finds a node."""

    def owner_class(self, node: fx.Node) -> type | None:
        """Return the class of the module in whose forward a node stands, if that is known."""

    def describe(self, node: fx.Node) -> str:
        """Return a node for a sentence."""

    def names(self, nodes: list[fx.Node]) -> str:
        """Return a few nodes for a sentence."""
