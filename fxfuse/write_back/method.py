"""A method beside the forward, and which modules it may use by themselves."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING

from torch import nn

from fxfuse.capture.known_objects import functions_of, values_of
from fxfuse.capture.members import forwards_of
from fxfuse.capture.untraced_code import has_elements
from fxfuse.graph.registry import operator_of
from fxfuse.modules.code import Mentions, mentions
from fxfuse.modules.lookup import CONTAINERS
from fxfuse.modules.method_steps import hands_on
from fxfuse.modules.origin import is_users
from fxfuse.operators.roles import Linear

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_CALLING = frozenset(["forward", "__call__", *(container.__name__ for container in CONTAINERS)])
_NOT, _CALLED, _APART = "not reached", "called", "taken apart"  # the elements of a container
_CHILDREN = frozenset(["children", "named_children"])
_DEEP = frozenset("modules named_modules get_submodule __dict__ _modules apply".split())


@dataclass(frozen=True, eq=False)
class Method:
    """A method beside the forward.

    Attributes:
        module: the module that has it.
        name: its name.
        functions: its functions, each with the class that defines it.
        used: whether the forward uses it.
        held_as: the names under which modules are held, by module.
    """

    module: nn.Module
    name: str
    functions: list[tuple[FunctionType, type | None]]
    used: bool
    held_as: Mapping[nn.Module, set[str]]

    @functools.cached_property
    def _all(self) -> dict[FunctionType, Mentions]:
        """The functions of the method, the methods that these name, and the helpers that all of them name."""
        known = [value for function in self._own for value in values_of(function) if not isinstance(value, type)]
        helpers = [inner for value in known for inner in functions_of(value)]
        return {**{helper: mentions(helper.__code__) for helper in helpers}, **self._own}

    @property
    def mentions(self) -> Collection[Mentions]:
        """What all of these mention."""
        return self._all.values()

    @functools.cached_property
    def _own(self) -> dict[FunctionType, Mentions]:
        """The functions of the method, and the methods that these name, with what they mention."""
        pending, seen = [function for function, _ in self.functions], dict[FunctionType, Mentions]()
        kinds = {type(module) for module in self.module.modules() if is_users(type(module))}
        while pending:
            function = pending.pop()
            if function not in seen:
                found = seen[function] = mentions(function.__code__)
                names = [name for name in found.names if not hasattr(nn.Module, name)]  # these do all as a whole
                pending += [inner for kind in kinds for name in names for inner in _defined(kind).get(name, ())]
        return seen

    def _names_at(self, kind: type) -> set[str]:
        """Return the names that it mentions of a module of some class: ``self.bn`` means that of its own class."""
        own = {function for function, _ in self.functions} if kind is type(self.module) else set[FunctionType]()
        own |= {function for functions in _defined(kind).values() for function in functions}
        names = set[str]()
        for function, found in self._all.items():
            names |= found.read | found.called
            if function in own or function not in self._own:
                names |= found.names
        return names

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names that it mentions."""
        return frozenset[str]().union(*(found.names for found in self.mentions))

    @functools.cached_property
    def values(self) -> frozenset[str]:
        """Those of which it asks for more than the shape or the like."""
        return frozenset[str]().union(*(found.names - found.asked for found in self.mentions))

    @functools.cached_property
    def calls(self) -> frozenset[str]:
        """The names that it calls at once."""
        return frozenset[str]().union(*(found.called | found.own_called for found in self.mentions))

    @functools.cached_property
    def calls_values(self) -> bool:
        """Whether it may call what it reads."""
        if not _CALLING.isdisjoint(self.names):
            return True
        own = any(found.calls_values for found in self._own.values())
        first = self.functions[0][0]  # which may call what somebody gives it
        return own or any(found.calls_parameters for function, found in self._all.items() if function is not first)

    @functools.cached_property
    def opens(self) -> tuple[bool, bool]:
        """Whether it may come to the children of its module, and to all modules in it, without their names."""
        # Base classes without a forward keep and load models: what they go through are no layers to call.
        kinds = [
            owner for _, owner in self.functions if owner is type(self.module) or "forward" in vars(owner or object)
        ]
        own = [mentions(function.__code__) for function, owner in self.functions if owner in kinds]
        names = frozenset[str]().union(*(found.names for found in own))
        texts = frozenset[str]().union(*(found.read for found in own))
        by_text = any("texts" in found.own_opens for found in own) and texts.isdisjoint(self.module._modules)
        children = by_text or any("children" in found.own_opens for found in own) or not names.isdisjoint(_CHILDREN)
        computed = any("modules" in found.opens for found in own) and names.isdisjoint(_CHILDREN)
        held = frozenset[str]().union(*(found.computed for found in own))
        computed = computed or any(name in module._modules for module in self.module.modules() for name in held)
        return children, computed or not names.isdisjoint(_DEEP)

    @property
    def takes_input(self) -> bool:
        """Whether it is given anything besides its module."""
        codes = [function.__code__ for function, _ in self.functions]
        return any(code.co_argcount + code.co_kwonlyargcount > 1 or code.co_flags & 0xC for code in codes)

    @functools.cached_property
    def switches(self) -> bool:
        """Whether it sets an attribute that the forward reads, and gives what that gives then."""
        own = [mentions(function.__code__) for function, _ in self.functions]
        stored = frozenset[str]().union(*(found.stored | found.own_stored for found in own))
        runs = any(not found.names.isdisjoint(("forward", "__call__")) for found in own)
        forward = (mentions(function.__code__).names for function, _ in forwards_of(type(self.module)))
        return runs and any(not stored.isdisjoint(names) for names in forward)

    @functools.cached_property
    def named(self) -> set[nn.Module]:
        """The modules that it mentions, each with all that hold it."""
        children, deep = self.opens
        if deep:
            return set(self.module.modules())
        found, pending = {self.module}, [(self.module, _APART if children else _NOT)]
        names_at: dict[type, set[str]] = {}
        while pending:
            holder, how = pending.pop()
            kind = type(holder)
            names = names_at[kind] = names_at[kind] if kind in names_at else self._names_at(kind)
            elements = how != _NOT and (has_elements(holder) or holder is self.module)
            for name, child in holder._modules.items():
                if child is not None and (elements or name in names) and child not in found:
                    found.add(child)
                    pending.append((child, self._takes(name) if not elements else how if how == _APART else _NOT))
        return found

    def _takes(self, name: str) -> str:
        """Return what it does with the elements of an attribute."""
        if any(name in found.read | found.own_read for found in self.mentions):
            return _APART
        return _CALLED if any(name in found.own_elements for found in self.mentions) else _NOT

    def uses(self, module: nn.Module) -> bool:
        """Whether it may call a module by itself, or compute with its tensors."""
        if module not in self.named:
            return False
        tensors = (*module._parameters, *module._buffers)
        computes = self.takes_input and not self.values.isdisjoint(tensors)
        return self.calls_values or computes or not self.calls.isdisjoint(self.held_as[module])

    def joins(self, fold: Collection[nn.Module], *, downstream: bool) -> bool:
        """Whether it gives what one layer of a fold gives to the other, and to nothing else."""
        linear = [m for m in fold if (row := operator_of(m)) is not None and issubclass(row.view, Linear)]
        order = [*linear, *(m for m in fold if m not in linear)][:: -1 if downstream else 1]
        names = [[n for n, child in self.module._modules.items() if child is m] for m in order]
        if len(fold) != 2 or len(linear) != 1 or [len(found) for found in names] != [1, 1] or any(self.opens):
            return False
        (one,), (two,) = names
        own = self._own.items()
        using = [function for function, found in own if not found.names.isdisjoint((one, two))]
        in_text = any(one in found.read or two in found.read for _, found in own)
        return len(using) == 1 and not in_text and hands_on(using[0].__code__, one, two)

    def splits(self, fold: Collection[nn.Module], *, downstream: bool) -> set[nn.Module]:
        """Return the modules of a fold that it uses by themselves, unless it hands one on to the other.

        Args:
            fold: the modules that the fold changes.
            downstream: whether it goes into what follows.
        """
        if self.switches:
            return {self.module}
        parts = {module for module in fold if not set(fold) <= set(module.modules())}  # else it is called as a whole
        found = {module for module in parts if self.uses(module)}
        if found != parts:
            return found
        near = any(module in self.module._modules.values() for module in found)
        by_name = all(self.names.issuperset(self.held_as[module]) for module in found)
        # Layers further below that are mentioned both only share their names with those that are meant.
        return found if (near or not by_name) and not self.joins(fold, downstream=downstream) else set()


# Weak, since a class may be made for one model alone.
_functions_of: weakref.WeakKeyDictionary[type, dict[str, list[FunctionType]]] = weakref.WeakKeyDictionary()


def _defined(kind: type) -> dict[str, list[FunctionType]]:
    """Return the functions that a class of the user's and its bases define, by name."""
    if kind not in _functions_of:
        found = _functions_of[kind] = dict[str, list[FunctionType]]()
        for base in [base for base in kind.__mro__ if is_users(base)]:
            for name, value in vars(base).items():
                if name not in found and not isinstance(value, type):
                    found[name] = list(functions_of(value))
    return _functions_of[kind]
