"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method that the forward does not use (``features`` beside ``forward``) still
calls the same modules.  If it calls the convolution without the norm, the fold would change its result.

A public method that the forward uses (``forward_features``) is there to be called as well.  Where a norm goes into
what follows, its result would lack the norm, so that is refused too.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING

from torch import nn

from fxfuse.capture.known_objects import functions_of
from fxfuse.capture.members import forwards_of
from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ancestors, splitting
from fxfuse.modules.method_steps import returns_nothing
from fxfuse.modules.origin import is_users
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.method import Method

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


# A method of such a name is the forward of a layer into which its norm has gone: YOLO's ``forward_fuse``.
_FOR_THE_FUSED = ("fuse", "deploy")


class OtherMethods:
    """The methods beside ``forward`` that somebody may call on a model that keeps its classes."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        """Look at the classes of the modules at some paths."""
        self._paths = paths
        self._above = ancestors(paths)
        self._held_as: dict[nn.Module, set[str]] = {module: set() for module in paths}
        for holder in paths:
            for name, child in holder._modules.items():
                if child is not None:
                    self._held_as[child].add(name)
        self._kinds: dict[type, dict[str, tuple[list[tuple[FunctionType, type | None]], bool]]] = {}
        self._methods: dict[nn.Module, list[Method]] = {}

    def refusal(self, modules: Collection[nn.Module], *, downstream: bool) -> Refusal | None:
        """Return why a fold would change what a method gives, None if none is known to.

        Args:
            modules: those that the fold changes.
            downstream: whether the values between are others, as a norm goes into what follows.
        """
        several = splitting(modules, self._above)  # one alone does the same for everybody who calls it
        around = frozenset.intersection(*(self._above[module] for module in modules)) if several else ()
        for method in (method for module in around for method in self.methods_of(module)):
            found = method.splits(modules, downstream=downstream) if downstream or not method.used else ()
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
            read = names & method.values | gone & method.names
            if read and owner in method.named:
                value = self._paths[owner] or type(owner).__name__
                raise Refusal(Reason.REACHED_INTO, value=value, users=self.name_of(method))

    def name_of(self, method: Method) -> str:
        """Return the path of a method."""
        return f"{self._paths[method.module] or type(method.module).__name__}.{method.name}"

    def methods_of(self, module: nn.Module) -> list[Method]:
        """Return the methods of a module that may give a value."""
        if module not in self._methods:
            found = self._of_class(type(module))
            methods = [Method(module, name, *entry, self._held_as) for name, entry in found.items()]
            # A private one counts with the public ones that call it.
            self._methods[module] = [m for m in methods if not m.name.startswith("_")]
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
        forward = self._names_of_forward(kind) if any(found.values()) else set()
        self._kinds[kind] = {
            name: (functions, name in forward)
            for name, functions in found.items()
            if functions and not (name in forward and name.startswith("_"))
        }
        return self._kinds[kind]

    @staticmethod
    def _names_of_forward(kind: type) -> set[str]:
        """Return the names in the forward of a class, and in the methods that these name."""
        pending, seen, names = [function for function, _ in forwards_of(kind)], set[FunctionType](), set[str]()
        while pending:
            function = pending.pop()
            if function not in seen:
                seen.add(function)
                found = mentions(function.__code__).names
                names |= found
                pending += [inner for name in found for inner in functions_of(getattr(kind, name, None))]
        return names
