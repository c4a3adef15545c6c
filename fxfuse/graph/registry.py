"""The table of operators: what can be called -> what is known of it, and how to look at the call."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from fxfuse.modules.computed_weights import computes_weights

if TYPE_CHECKING:
    from torch import fx, nn

Axes: TypeAlias = Callable[[object], "int | None"]  # the number of axes of a value, as far as it is known
RankOf: TypeAlias = Callable[[Mapping[str, Any], Axes], "int | None"]  # takes the arguments of a call by name


class NoRole:
    """The view of an operation of which facts are known, and which plays no role in a fold."""


class ShapeAndResult(TypedDict, total=False):
    """The columns that most rows fill."""

    shape: Literal["same", "same rank", "linear", "broadcast"]
    result: Literal["new", "view", "maybe view", "parts", "in place", "number"]


class Columns(ShapeAndResult, total=False):
    """What is known of an operation for all inputs; ``register`` tells what each column means."""

    rank: int | RankOf
    takes: tuple[int, ...]
    axes: str
    spatial: int
    strides: Literal["fixed", "dense"]
    asks: Literal["shape", "rank", "strides", "dense strides"]
    like: str


@dataclass(frozen=True)
class Operator:
    """A row of the table, with the arguments of ``register``; a column that is empty is unknown.

    The names of its arguments are a closed vocabulary: nothing else is ever read from a module, since names like
    ``train`` are methods there.
    """

    name: str
    view: type[Any]
    arguments: tuple[str, ...]
    tuples: bool = False
    otherwise: type[Any] | None = None
    shape: str | None = None
    rank: int | RankOf | None = None
    takes: tuple[int, ...] = ()
    axes: str = ""
    spatial: int | None = None
    result: str | None = None
    strides: str | None = None
    asks: str | None = None
    like: str | None = None

    @property
    def views(self) -> tuple[type[Any], ...]:
        """The classes that look at a call of it, in the order in which they are tried."""
        return (self.view,) if self.otherwise is None else (self.view, self.otherwise)

    @property
    def plays(self) -> bool:
        """Whether it plays a role in a fold."""
        return self.view is not NoRole

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its arguments."""
        return tuple(name.lstrip("*") for name in self.arguments)

    def passed(self, node: fx.Node) -> dict[str, Any]:
        """Return the arguments of a call of a function or method, by name."""
        names, args = self.arguments, node.args
        if names and names[-1].startswith("*"):
            first, rest = args[: len(names) - 1], args[len(names) - 1 :]
            listed = rest[0] if len(rest) == 1 and isinstance(rest[0], (list, tuple)) else rest
            names, args = self.names, (*first, listed) if rest else first
        return {**dict(zip(names, args, strict=False)), **node.kwargs}


OPERATORS: dict[Any, Operator] = {}
LATE: dict[str, Callable[[], None]] = {}
"""Packages that need not be installed -> what adds rows for them."""


def add_late_rows() -> None:
    """Add the rows for the packages that were imported since."""
    for package in [package for package in LATE if package in sys.modules]:
        LATE.pop(package)()


COMPUTES = ("call_function", "call_method")  # nodes that run code that is no module's

# What a subclass may define without becoming another operation.
_HARMLESS = frozenset(
    "__init__ __module__ __qualname__ __doc__ __annotations__ __constants__ __repr__ __firstlineno__ "
    "__static_attributes__ __abstractmethods__ _abc_impl __parameters__ __dict__ __weakref__ extra_repr "
    "reset_parameters reset_running_stats".split()
)


_UNKNOWN: Any = object()
# Weak, since each GraphModule is a class of its own.
_by_type: weakref.WeakKeyDictionary[type[nn.Module], Operator | None] = weakref.WeakKeyDictionary()


def row_of(module: nn.Module) -> Operator | None:
    """Return the row for a module, or None if its class is not in the table or its call does something else."""
    own = module.__dict__
    if "forward" in own or (own.get("_forward_pre_hooks") and computes_weights(module)):
        return None
    cls = type(module)
    known = _by_type.get(cls, _UNKNOWN)
    if known is _UNKNOWN:
        known = _by_type[cls] = _row_of_class(cls)
    return known


def _row_of_class(cls: type[nn.Module]) -> Operator | None:
    """Look for the class, or a base of which it changes nothing that ``forward`` could use."""
    defined: set[str] = set()
    for base in cls.__mro__:
        if base in OPERATORS:
            row = OPERATORS[base]
            used = set(dir(base)) | set(row.arguments)
            return None if defined & used else row
        defined |= set(vars(base)) - _HARMLESS
    return None


def operator_of(module: nn.Module) -> Operator | None:
    """Return the row for a module that plays a role."""
    row = row_of(module)
    return row if row is not None and row.plays else None


def row_at(node: fx.Node) -> Operator | None:
    """Return the row for the function or method that a node calls."""
    return OPERATORS.get(node.target) if node.op in COMPUTES else None


def tuple_row(node: fx.Node) -> Operator | None:
    """Return the row of a call that gives a tuple, None for all others."""
    row = OPERATORS.get(node.target) if node.op == "call_function" else None
    return row if row is not None and row.tuples else None
