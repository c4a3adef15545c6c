"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method (``features`` beside ``forward``) may call the same modules.  If it calls
the convolution without the norm, the fold would change its result.
"""

from __future__ import annotations

import re
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.capture.known_objects import functions_of
from fxfuse.capture.members import UNCALLED, Members, forwards_of
from fxfuse.capture.untraced_code import Code
from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ATOMS, ancestors, splitting
from fxfuse.modules.origin import is_users
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.method import Method

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A method of such a name makes a layer take in its norm, or is the forward of one that has: YOLO's ``forward_fuse``.
_FOR_THE_FUSED = re.compile("(?<![a-z])(fuse|deploy|reparam)|Fuse|Deploy|Reparam")  # no ``diffuse``


class OtherMethods:
    """The methods beside ``forward`` that somebody may call on a model that keeps its classes."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        """Look at the classes of the modules at some paths."""
        self._paths = paths
        self._above = ancestors(paths)
        self._members = Members(paths)
        self._held_as: dict[nn.Module, set[str]] = {module: set() for module in paths}
        for holder in paths:
            for name, child in holder._modules.items():
                if child is not None:
                    self._held_as[child].add(name)
        self._forwards: dict[type, Collection[str]] = {}
        self._methods: dict[type, list[Method]] = {}
        self._used: dict[tuple[nn.Module, Method], set[nn.Module]] = {}

    def refusal(self, modules: Collection[nn.Module], *, downstream: bool) -> Refusal | None:
        """Return why a fold would change what a method gives, None if none is known to.

        Args:
            modules: those that the fold changes.
            downstream: whether the values between are others, as a norm goes into what follows.
        """
        split = splitting(modules, self._above)  # one alone does the same for everybody who calls it
        around = frozenset.intersection(*(self._above[module] for module in modules)) if split else ()
        for holder in around:
            for method in self._methods_of(type(holder)):
                forward = self._named_by_forward(type(holder))
                within = method.name in forward  # so that the graph of the forward holds what it does
                if within and not downstream:
                    continue
                switches = not within and method.sets(forward)
                found = {holder} if switches else split & self._uses(holder, method)
                if found and not method.joins(holder, modules, downstream=downstream):
                    alone = ", ".join(sorted(self._paths[module] for module in found))
                    return Refusal(Reason.REACHED_INTO, value=alone, users=self._name_of(holder, method))
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
        for holder in self._above[owner] if names else ():
            for method in self._methods_of(type(holder)):
                read = names & method.code.values | gone & method.code.names
                if read and not method.gives_nothing and owner in method.reached(holder).touched:
                    value = self._paths[owner] or type(owner).__name__
                    raise Refusal(Reason.REACHED_INTO, value=value, users=self._name_of(holder, method))

    def _name_of(self, holder: nn.Module, method: Method) -> str:
        """Return the path of a method."""
        return f"{self._paths[holder] or type(holder).__name__}.{method.name}"

    def _uses(self, holder: nn.Module, method: Method) -> set[nn.Module]:
        if (holder, method) not in self._used:
            self._used[holder, method] = method.uses(holder, self._held_as)
        return self._used[holder, method]

    def _named_by_forward(self, kind: type) -> Collection[str]:
        """Return the names in the forward of a class, and in what it may run."""
        if kind not in self._forwards:
            self._forwards[kind] = Code(self._members, forwards_of(kind)).names
        return self._forwards[kind]

    def _methods_of(self, kind: type) -> list[Method]:
        """Return the methods of a class that may give a value."""
        if kind not in self._methods:
            found: dict[str, Method] = {}
            for base in [base for base in kind.__mro__ if is_users(base)]:
                keeps = getattr(base, "forward", nn.Module.forward) is nn.Module.forward
                members = None if keeps else self._members
                for name, value in vars(base).items():
                    known = name in found or name in UNCALLED or hasattr(nn.Module, name)
                    if not known and _is_public(name, value):
                        method = Method(name, value, base, members)
                        if not (keeps and _opens(value)) or method.hands_input_on:
                            found[name] = method
            fusing = {name for name, method in found.items() if _is_for_the_fused(method)}
            fusing |= {n for name in fusing for f in found[name].code.functions for n in mentions(f.__code__).names}
            self._methods[kind] = [method for name, method in found.items() if name not in fusing]
        return self._methods[kind]


def _is_public(name: str, value: Any) -> bool:
    """Whether somebody may call what a class has under a name: it is neither private nor a plain value."""
    plain = isinstance(value, (Tensor, type)) or type(value) in ATOMS - {FunctionType}
    return not plain and (name.startswith("__") or not name.startswith("_"))


def _is_for_the_fused(method: Method) -> bool:
    named = _FOR_THE_FUSED.search(method.name) is not None
    return named and ("forward" in method.name or method.gives_nothing or not method.takes_input)


def _opens(value: Any) -> bool:
    """Whether a function goes through all layers: one of a class without a forward keeps or loads them."""
    found = [mentions(function.__code__) for function in functions_of(value)]
    return any(each.opens or each.opens_own or each.hands_own for each in found)
