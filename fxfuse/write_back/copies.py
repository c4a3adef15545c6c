"""Copies of a tree of modules that share their tensors."""

from __future__ import annotations

import collections
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxfuse.modules.lookup import ATOMS, paths_below, shallow_copy
from fxfuse.modules.origin import is_compiled, runs_compiled
from fxfuse.write_back.rebinding import exchanged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

HOLD_NOTHING = ATOMS - {types.FunctionType}
"""The types of attributes in which there can be no module."""


def copies_of(
    model: nn.Module, replaced: Mapping[nn.Module, nn.Module], roots: Iterable[nn.Module] | None = None
) -> dict[nn.Module, nn.Module]:
    """Return a copy of every module below a model, some replaced by others, put together as the originals are.

    So ``train()`` or a new child on one side does not reach the other.  Tensors are shared.

    Args:
        model: the model; modules that are not part of it are never copied.
        replaced: the new versions of some.
        roots: the modules to copy, with all that they hold; by default the model.
    """
    copies = _Copies(paths_below(model), replaced)
    for root in [model] if roots is None else roots:
        copies.of(root)
    while copies.pending:
        copied = copies.pending.pop()
        for name, value in copied.__dict__.items():
            # Most are registries of hooks without any.
            empty = type(value) in (dict, collections.OrderedDict, set) and not value
            if not empty and type(value) not in HOLD_NOTHING and name not in ("_parameters", "_buffers"):
                copied.__dict__[name] = exchanged(value, copies.of)
    return copies.made


class _Copies:
    """The copies that were made, and those of which the attributes are still to be looked at."""

    def __init__(self, members: Collection[nn.Module], replaced: Mapping[nn.Module, nn.Module]) -> None:
        self.members = members
        self.replaced = replaced
        self.made: dict[nn.Module, nn.Module] = {}
        self.pending: list[nn.Module] = []

    def of(self, module: nn.Module) -> nn.Module:
        """Return the copy of a module of the model, and any other module as it is."""
        if module not in self.members:
            return module
        if module not in self.made:
            self.made[module] = _copy(self.replaced.get(module, module))
            if self.made[module] is not module:
                self.pending.append(self.made[module])
        return self.made[module]


def _copy(module: nn.Module) -> nn.Module:
    # A scripted module lives in C++, where no attribute can be exchanged.
    if isinstance(module, torch.jit.ScriptModule):
        return module
    copied = shallow_copy(module)
    if is_compiled(module) and runs_compiled(module):
        copied.__dict__["dynamo_ctx"] = _as_it_is  # also for copies of this one
    return copied


def _as_it_is(function: Any) -> Any:
    """Return a function: in the place of the compiler."""
    return function


class SeparateOnConversion:
    """Stands for ``_apply`` of a model that shares Parameter objects with another one.

    ``half()`` and ``to()`` go through ``_apply``, and exchange the memory of each Parameter object.  So the first of
    them gives the model objects of its own; until then both models read the same ones.
    """

    def __init__(self, model: nn.Module) -> None:
        """Guard ``model``."""
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Separate the model, then do what was asked for: a class of the user's may take less than torch's does."""
        self.model.__dict__.pop("_apply", None)
        renew_parameters(self.model)
        return self.model._apply(*args, **kwargs)


def renew_parameters(model: nn.Module) -> None:
    """Give a model Parameter objects of its own, which share their memory with the former ones."""
    renewed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, parameter in module._parameters.items():
            if type(parameter) is not nn.Parameter:
                continue  # None, or a class that may need more than its data
            if id(parameter) not in renewed:
                new = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
                new.__dict__.update(parameter.__dict__)
                renewed[id(parameter)] = new
            module._parameters[name] = renewed[id(parameter)]
