"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method that the forward does not use (``features`` beside ``forward``) still
calls the same modules.  If it calls the convolution without the norm, the fold would change its result.

A public method that the forward uses (``forward_features``) is there to be called as well.  Where a norm goes into
what follows, its result would lack the norm, so that is refused too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from fxfuse.capture.known_objects import functions_of
from fxfuse.capture.untraced_code import Code, Members, forwards_of
from fxfuse.graph.registry import operator_of
from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ancestors, splitting
from fxfuse.modules.method_steps import hands_on, returns_nothing
from fxfuse.modules.origin import is_users
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from types import FunctionType


# A method of such a name is the forward of a layer into which its norm has gone: YOLO's ``forward_fuse``.
_FOR_THE_FUSED = ("fuse", "deploy")


@dataclass(frozen=True, eq=False)
class _Method:
    """A method beside the forward.

    Attributes:
        module: the module that has it.
        name: its name.
        functions: its functions, each with the class that defines it.
        used: whether the forward uses it.
        members: what the classes of the model define.
    """

    module: nn.Module
    name: str
    functions: list[tuple[FunctionType, type | None]]
    used: bool
    members: Members

    @functools.cached_property
    def code(self) -> Code:
        """All that it may call."""
        return Code(self.members, self.functions, unseen=False)

    @functools.cached_property
    def touched(self) -> set[nn.Module]:
        """The modules that it may use by themselves."""
        if self.used:
            self.code.opens = False  # where it goes through lists of modules, the forward does so too, and was traced
        return self.code.touched([self.module])

    @functools.cached_property
    def switches(self) -> bool:
        """Whether it sets an attribute that the forward reads, and gives what that gives then."""
        forward = Code(self.members, forwards_of(type(self.module))).names if self.code.all_stored else set()
        return not self.code.all_stored.isdisjoint(forward) and "forward" in self.code.names

    @property
    def takes_input(self) -> bool:
        """Whether it is given anything besides its module."""
        codes = [function.__code__ for function, _ in self.functions]
        return any(code.co_argcount + code.co_kwonlyargcount > 1 or code.co_flags & 0xC for code in codes)

    def joins(self, fold: Collection[nn.Module], *, downstream: bool) -> bool:
        """Whether it gives what one layer of a fold gives to the other, and to nothing else."""
        linear = [m for m in fold if (row := operator_of(m)) is not None and issubclass(row.view, Linear)]
        order = [*linear, *(m for m in fold if m not in linear)][:: -1 if downstream else 1]
        names = [[n for n, child in self.module._modules.items() if child is m] for m in order]
        if len(fold) != 2 or len(linear) != 1 or [len(found) for found in names] != [1, 1] or self.code.opens:
            return False
        (one,), (two,) = names
        using = [f for f in self.code.functions if not mentions(f.__code__).names.isdisjoint((one, two))]
        return len(using) == 1 and hands_on(using[0].__code__, one, two)

    def splits(self, fold: Collection[nn.Module], split: frozenset[nn.Module], *, downstream: bool) -> set[nn.Module]:
        """Return what it computes with that holds a part of a fold, and not all of it.

        Args:
            fold: the modules that the fold changes.
            split: all modules that hold a part of it.
            downstream: whether it goes into what follows.
        """
        found = self.touched & split
        if self.switches:
            return {self.module}
        covered = {inner for module in found for inner in module.modules()} if self.used else set()
        if covered.issuperset(fold) or self.joins(fold, downstream=downstream):
            return set()
        if not found or self.code.calls or not self.code.all_called.isdisjoint(self._names_of(found)):
            return found
        tensors = {name for module in fold for name in (*module._parameters, *module._buffers)}
        return found if self.takes_input and not tensors.isdisjoint(self.code.names) else set()

    def _names_of(self, found: set[nn.Module]) -> set[str]:
        """Return the names under which modules are held, and those by which any can be called."""
        names = {name for module in self.module.modules() for name, child in module._modules.items() if child in found}
        return {*names, "forward", "__call__"}


class OtherMethods:
    """The methods beside ``forward`` that somebody may call on a model that keeps its classes."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        """Look at the classes of the modules at some paths."""
        self._paths = paths
        self._above = ancestors(paths)
        self._members = Members(paths)
        self._kinds: dict[type, dict[str, tuple[list[tuple[FunctionType, type | None]], bool]]] = {}
        self._methods: dict[nn.Module, list[_Method]] = {}

    def refusal(self, modules: Collection[nn.Module], *, downstream: bool) -> Refusal | None:
        """Return why a fold would change what a method gives, None if none is known to.

        Args:
            modules: those that the fold changes.
            downstream: whether the values between are others, as a norm goes into what follows.
        """
        split = splitting(modules, self._above)
        around = frozenset.intersection(*(self._above[module] for module in modules)) if split else ()
        for method in (method for module in around for method in self.methods_of(module)):
            found = method.splits(modules, split, downstream=downstream) if downstream or not method.used else ()
            if found:
                alone = ", ".join(sorted(self._paths[module] for module in found))
                return Refusal(Reason.REACHED_INTO, value=alone, users=self.name_of(method))
        return None

    def require_same(self, modules: Collection[nn.Module], *, downstream: bool) -> None:
        """Refuse a fold that would change what a method gives; see ``refusal``."""
        refusal = self.refusal(modules, downstream=downstream)
        if refusal is not None:
            raise refusal

    def require_unread(self, owner: nn.Module, names: set[str], gone: set[str]) -> None:
        """Refuse to change tensors that a method reads.

        Args:
            owner: the module that holds them.
            names: what they are called there.
            gone: those that it will not have any more, of which a method cannot ask the shape either.
        """
        for method in (m for module in self._above[owner] for m in self.methods_of(module)) if names else ():
            read = names & method.code.values | gone & method.code.names
            if owner in method.touched and read:
                value = self._paths[owner] or type(owner).__name__
                raise Refusal(Reason.REACHED_INTO, value=value, users=self.name_of(method))

    def name_of(self, method: _Method) -> str:
        """Return the path of a method."""
        return f"{self._paths[method.module] or type(method.module).__name__}.{method.name}"

    def methods_of(self, module: nn.Module) -> list[_Method]:
        """Return the methods of a module that may give a value."""
        if module not in self._methods:
            found = self._of_class(type(module))
            self._methods[module] = [_Method(module, name, *entry, self._members) for name, entry in found.items()]
        return self._methods[module]

    def _of_class(self, kind: type) -> dict[str, tuple[list[tuple[FunctionType, type | None]], bool]]:
        """Return the methods of a class that may give a value: functions, and whether the forward uses them."""
        if kind in self._kinds:
            return self._kinds[kind]
        found: dict[str, list[tuple[FunctionType, type | None]]] = {}
        for base in [base for base in kind.__mro__ if is_users(base)]:
            for name, value in vars(base).items():
                plain = not isinstance(value, (staticmethod, classmethod, type)) and name not in found
                plain = plain and not hasattr(nn.Module, name)  # what it loads, moves or switches, it does as a whole
                if plain and not name.startswith("__") and not any(word in name for word in _FOR_THE_FUSED):
                    found[name] = [(f, base) for f in functions_of(value) if not returns_nothing(f.__code__)]
        forward = Code(self._members, forwards_of(kind)).names if any(found.values()) else set()
        self._kinds[kind] = {
            name: (functions, name in forward)
            for name, functions in found.items()
            if functions and not (name in forward and name.startswith("_"))
        }
        return self._kinds[kind]
