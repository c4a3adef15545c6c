"""The table of operators: what can be called -> how to look at the call."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx, nn


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        name: the field's name of the operation.
        view: the class that looks at a call of it.
        arguments: the names of its arguments in the order of positional ones.  They are a closed vocabulary:
            nothing else is ever read from a module, since names like ``train`` are methods there.
        tuples: the call gives a tuple, of which only the first item is the value.
        otherwise: the class for calls that do not match the first: ``x + 1`` is an affine, ``x + y`` a sum.
    """

    name: str
    view: type[Any]
    arguments: tuple[str, ...]
    tuples: bool = False
    otherwise: type[Any] | None = None

    @property
    def views(self) -> tuple[type[Any], ...]:
        """The classes that look at a call of it, in the order in which they are tried."""
        return (self.view,) if self.otherwise is None else (self.view, self.otherwise)


OPERATORS: dict[Any, Operator] = {}

# What a subclass may define without becoming another operation.
_HARMLESS = frozenset(
    "__init__ __module__ __qualname__ __doc__ __annotations__ __constants__ __repr__ __firstlineno__ "
    "__static_attributes__ __abstractmethods__ _abc_impl __parameters__ __dict__ __weakref__ extra_repr "
    "reset_parameters reset_running_stats".split()
)


_UNKNOWN: Any = object()
# Weak, since each GraphModule is a class of its own.
_by_type: weakref.WeakKeyDictionary[type[nn.Module], Operator | None] = weakref.WeakKeyDictionary()


def operator_of(module: nn.Module) -> Operator | None:
    """Return the row for a module, or None if its class is not in the table or its forward was replaced."""
    if "forward" in module.__dict__:
        return None
    cls = type(module)
    known = _by_type.get(cls, _UNKNOWN)
    if known is _UNKNOWN:
        known = _by_type[cls] = _operator_of_class(cls)
    return known


def _operator_of_class(cls: type[nn.Module]) -> Operator | None:
    """Look for the class, or a base of which it changes nothing that ``forward`` could use."""
    defined: set[str] = set()
    for base in cls.__mro__:
        if base in OPERATORS:
            operator = OPERATORS[base]
            used = set(dir(base)) | set(operator.arguments)
            return None if defined & used else operator
        defined |= set(vars(base)) - _HARMLESS
    return None


def tuple_row(node: fx.Node) -> Operator | None:
    """Return the row of a call that gives a tuple, None for all others."""
    row = OPERATORS.get(node.target) if node.op == "call_function" else None
    return row if row is not None and row.tuples else None
