"""Functions with all that they may call by name, and the modules that they may come to so.

Nothing follows assignments, loops or arguments: code that holds a module may use whatever is there under a name that it
mentions, and any element of a container.  What cannot be known may be used.
"""

from __future__ import annotations

import functools
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from fxfuse.capture.known_objects import functions_of, objects_in, values_of
from fxfuse.capture.members import Members, forwards_of
from fxfuse.modules.code import Mentions, mentions
from fxfuse.modules.lookup import ATOMS, CONTAINERS, REGISTRIES
from fxfuse.modules.origin import is_users

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_ALL, _CHILDREN = "*", "/"  # among the names that are read: every module below; every child
_Own: TypeAlias = "dict[type, tuple[set[str], set[str], set[str]]]"


class Code:
    """Functions, and all that they may call by name.

    Attributes:
        read: names that are read.
        called: names that are called at once.
        own: class -> what its methods read of their first parameter, call at once, and call the elements of; those that
            the code begins with are apart, since they are not called on others.
        computed: names of what it gets attributes of by computed names.
        stored: names that are set, of anything but their first parameter.
        all_stored: names that are set.
        names: all names that are read or called.
        values: those of which more is asked than the shape or the like.
        opens: whether it may come to modules without their names.
        known: what they know without having been given it.
    """

    def __init__(self, members: Members, functions: Iterable[tuple[FunctionType, type | None]]) -> None:
        """Read functions, each with the class that defines it.

        Args:
            members: what else they may call by name.
            functions: the functions.  A decorator's wrapper among them is taken to hand on what it is given.
        """
        self.read: set[str] = set()
        self.called: set[str] = set()
        self._elements: set[str] = set()
        self.own: _Own = {}
        self.computed: set[str] = set()
        self.stored: set[str] = set()
        self.all_stored: set[str] = set()
        self.names: set[str] = set()
        self.values: set[str] = set()
        self.opens = False
        self.known: list[Any] = []
        self._members = members
        self._seen: set[Any] = set()
        self._ids: set[int] = set()
        entries = [*functions]
        self._first = set(entries)
        self._of_given: _Own = {}
        for wraps in (False, True):
            self._wraps = wraps
            self._follow([entry for entry in entries if hasattr(entry[0], "__wrapped__") is wraps])

    def _follow(self, functions: list[tuple[FunctionType, type | None]]) -> None:
        """Read functions, and those that they name."""
        self._pending = functions
        while self._pending:
            function, owner = self._pending.pop()
            if (function, owner) in self._seen:
                continue
            self._seen.add((function, owner))
            self._read(function, owner)
            if not self._pending:
                named = (self._members.named.get(name, ()) for name in self.names if name != "forward")
                self._pending = [entry for entries in named for entry in entries if entry not in self._seen]

    def _read(self, function: FunctionType, owner: type | None) -> None:
        found = mentions(function.__code__)
        of_given = self._of_given if (function, owner) in self._first else self.own
        others = (self.read, self.called, self._elements)
        own = of_given.setdefault(owner, (set(), set(), set())) if owner is not None else others
        for names, more in zip(own, (found.own_read, found.own_called, found.own_elements), strict=True):
            names.update(more)
        self.read |= found.read
        self.called |= found.called
        self.names |= found.names
        self.values |= found.names - found.asked
        self.stored |= found.stored | (found.own_stored if owner is None else set())
        self.all_stored |= found.stored | found.own_stored
        if not self._wraps:
            self._open(found, owner, own[0])
            hands = owner is not None and any(not _is_read(function, name) for name in found.own_given)
            own[0].update([_ALL] if hands else [])
        for value in values_of(function):
            for held in objects_in(value, self._ids):
                self.known.append(held)
                self._pending += [(inner, None) for inner in functions_of(held)]
                if not isinstance(held, (nn.Module, FunctionType)):
                    self._members.add(held if isinstance(held, (type, ModuleType)) else type(held))
                if isinstance(held, type) and issubclass(held, nn.Module) and "forward" in found.names:
                    # a call such as Base.forward(self, x) in it
                    self._pending += [(f, self._members.owner(base, f)) for f, base in forwards_of(held)]

    def _open(self, found: Mentions, owner: type | None, own: set[str]) -> None:
        """Note where a function comes to modules without their names."""
        of_module = owner is None or issubclass(owner, nn.Module)
        self.computed |= found.computed
        own |= {_ALL} if of_module and found.own_opens & {"modules", "tensors", "sets_own"} else set()
        own |= {_CHILDREN} if of_module and found.own_opens & {"children", "texts"} else set()
        self.opens = self.opens or bool(found.opens) or not found.names.isdisjoint(("train", "eval"))

    @functools.cached_property
    def calls(self) -> set[str]:
        """The names of what it calls."""
        return self.called.union(*(kinds[1] for kinds in (*self.own.values(), *self._of_given.values())))

    @property
    def functions(self) -> list[FunctionType]:
        """All functions that were read."""
        return [function for function, _ in self._seen]

    def touched(self, hands: Iterable[nn.Module]) -> set[nn.Module]:
        """Return the modules that the code may call, or look into, by themselves: of those that it is given."""
        given, called = set(hands), set[nn.Module]()
        return given | self.taken(given, called) | called

    def taken(self, hands: Iterable[nn.Module], called: set[nn.Module]) -> set[nn.Module]:
        """Return the modules that the code may hold, and look into; add to ``called`` those that it calls at once."""
        given = set(hands)
        taken = {value for value in self.known if isinstance(value, nn.Module)}
        pending = [*given, *taken]
        seen = set(pending)
        while pending:
            module = pending.pop()
            own = [self.own, self._of_given] if module in given or "forward" in self.names else [self.own]
            for child in self._from(module, own, called):
                taken.add(child)
                if child not in seen:
                    seen.add(child)
                    pending.append(child)
        return taken

    def _from(self, module: nn.Module, methods: list[_Own], touched: set[nn.Module]) -> Iterator[nn.Module]:
        """Yield what the code may take from a module; note in ``touched`` what it calls at once."""
        own = [names[cls] for names in methods for cls in type(module).__mro__ if cls in names]
        read, called, elements = (
            names.union(*(more[kind] for more in own))
            for kind, names in enumerate((self.read, self.called, self._elements))
        )
        everything = self.opens or _CHILDREN in read or has_elements(module)
        if _ALL in read:
            yield from module.modules()
        for name, child in [(name, child) for name, child in module._modules.items() if child is not None]:
            # A class of the user's may have other elements than its children.
            opened = name in elements and type(child) not in CONTAINERS
            if everything or opened or name in read:
                yield child
            elif name in called or name in elements:
                touched.update((child, *(child.children() if name in elements else ())))
            if name in self.computed:
                yield from child.children()
        known = read | called | elements
        for name, value in module.__dict__.items():
            if name not in REGISTRIES and type(value) not in ATOMS and (self.opens or name in known):
                yield from (held for held in objects_in(value) if isinstance(held, nn.Module))


def _is_read(function: FunctionType, name: str) -> bool:
    """Whether what a function names is a function that is read too, or one that only asks what it gets."""
    helper = function.__globals__.get(name)
    return name in _ASKING or (isinstance(helper, FunctionType) and is_users(helper))


_ASKING = ("isinstance", "type", "id", "len", "getattr", "hasattr", "super")  # computed names are seen by themselves


def has_elements(module: nn.Module) -> bool:
    """Whether code can come to the children of a module without their names: by a number, a key, or a loop."""
    cls = type(module)
    return isinstance(module, CONTAINERS) or hasattr(cls, "__getitem__") or hasattr(cls, "__iter__")
