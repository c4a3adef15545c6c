"""Whether a forward of the user's reads what a layer notes of itself: its sizes, its weight.

Where the user's code goes on running, it must find there what it found before.
"""

from __future__ import annotations

import ast
from types import FunctionType
from typing import TYPE_CHECKING, Any

from fxfuse.source.syntax import is_name, nodes_of, parse, plain_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

_NOTED = frozenset(
    "weight bias in_channels out_channels in_features out_features num_features kernel_size stride padding dilation "
    "groups padding_mode".split()
)
_ALL_OF_THEM = frozenset("parameters named_parameters state_dict buffers named_buffers".split())
# What Python calls by itself.
_CALLED = ("forward", "__call__", "__getattr__", "__getattribute__")


def reads_layers(model: nn.Module) -> bool:
    """Whether code that a forward may reach, going by all the names in it, reads that of another module.

    Example:
        >>> import torch
        >>> reads_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        False
    """
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    members: dict[str, list[Any]] = {}
    for cls in classes:
        if not cls.__module__.startswith(("torch.", "builtins", "fxfuse.")):
            for name, member in vars(cls).items():
                members.setdefault(name, []).append(member)
    pending, seen = set(_CALLED), set[str]()
    while pending:
        name = pending.pop()
        seen.add(name)
        for function in _functions(members.get(name, ())):
            names = _names(function)
            if names is None:
                return True
            pending |= names - seen
            members |= {helper: [value] for helper, value in _helpers(function, names - members.keys())}
    return False


def _functions(found: Iterable[Any]) -> Iterator[Any]:
    """Yield the functions behind members of classes."""
    for member in found:
        static = isinstance(member, staticmethod)
        function = plain_function(member) if not isinstance(member, type) else None
        if function is not None:
            yield (function, static)


def _helpers(function: tuple[Any, bool], names: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the functions of the user's that a function may call by name."""
    known = getattr(function[0], "__globals__", {})
    for name in names:
        value = known.get(name)
        if isinstance(value, FunctionType) and not value.__module__.startswith("torch."):
            yield name, staticmethod(value)


def _names(function: tuple[Any, bool]) -> set[str] | None:
    """Return all names in a function; None where it reads what a layer notes, or cannot be read."""
    try:
        tree, first = parse(function[0])
    except (OSError, TypeError, SyntaxError):
        return None
    names: set[str] = set()
    for node in nodes_of(tree):
        if isinstance(node, ast.Attribute):
            own = not function[1] and is_name(node.value, first)
            if node.attr in _ALL_OF_THEM or (node.attr in _NOTED and not own):
                return None
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif (isinstance(node, ast.Constant) and node.value in _NOTED) or (
            isinstance(node, ast.MatchClass) and not _NOTED.isdisjoint(node.kwd_attrs)
        ):
            return None
    return names
