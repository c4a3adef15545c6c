"""Code of modules that was not traced, and the modules that it may come to.

Nothing follows assignments, loops or arguments.  A method may go from a module to what it mentions of it by name.  What
it does anything else with than to call it or to ask for an attribute is open: whoever gets it, a helper, a table, an
object that is made, may use all that is below.  So only the methods of modules are read, and nothing that they call.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fxfuse.capture.known_objects import modules_known, values_of
from fxfuse.capture.members import Entry, Members, functions_in
from fxfuse.capture.only_calls import OnlyCalls, by_keyword
from fxfuse.modules.code import VARIABLE, Mentions, mentions
from fxfuse.modules.lookup import ATOMS, CONTAINERS, REGISTRIES, contents_of, paths_below
from fxfuse.modules.origin import is_users, package_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Of which steps are read as what Python means by them, if nobody has another function of that name.
_KNOWN = frozenset("isinstance type id len enumerate zip reversed getattr hasattr super".split())


class Reached(NamedTuple):
    """The modules to which code may come.

    Attributes:
        touched: all of them, also those that it only calls, and those that it is given.
        held: those that it takes out of others.
        opened: those that it may use in any way.
    """

    touched: set[nn.Module]
    held: set[nn.Module]
    opened: set[nn.Module]


class Code:
    """Methods of modules, and those that they name.

    Attributes:
        opens: whether it may come to any module.
        names: all names that are read or called.
        values: those of which more is asked than the shape or the like.
        known: the modules that it knows without having been given them.
        functions: all that were read.
    """

    def __init__(self, members: Members, entries: Iterable[Entry], *, helpers: bool = False) -> None:
        """Read functions.

        Args:
            members: what they may call by name.
            entries: what the code begins with.
            helpers: whether to read what they hand modules to, too, and not to take these for open.
        """
        self._helpers = helpers
        self.opens = False
        self.values: set[str] = set()
        self._stored: dict[str, set[type | None]] = defaultdict(set)
        self.known: set[nn.Module] = set()
        self.functions: dict[FunctionType, None] = {}
        self._owners: dict[tuple[str, str], set[type | None]] = defaultdict(set)
        self._opened: set[type | None] = set()
        self.names: set[str] = set()
        self._others = OnlyCalls(members)
        self._leading = {"", *members.children, *members.named}  # by which one comes to modules
        seen, found, pending = set[Any](), set[str](), [*entries, *members.implicit]
        while pending:
            value, owner = pending.pop()
            if (id(value), owner) not in seen:
                seen.add((id(value), owner))
                pending += self._take(value, owner)
                for name in (self.names | self._stored.keys()) - found:  # what is set may be a property
                    found.add(name)
                    pending += members.named.get(name, ())
        self.opens = self.opens or not self._others.methods.isdisjoint(self._stored)

    @property
    def others(self) -> set[str]:
        """The names that it mentions of anything but a method's own module."""
        return {name for (_, name), owners in self._owners.items() if None in owners}

    def _take(self, value: Any, owner: type | None) -> list[Entry]:
        """Read what a class has under a name; return what that calls."""
        if isinstance(value, FunctionType):
            return self._read(value, owner) if is_users(value) else []
        if isinstance(value, (property, functools.cached_property)):
            return [(getattr(value, name, None), owner) for name in ("fget", "fset", "func")]
        if isinstance(value, (staticmethod, classmethod)):
            return [(value.__func__, None)]
        if isinstance(value, functools._lru_cache_wrapper):
            return [(value.__wrapped__, owner)]
        if hasattr(type(value), "__get__") and package_of(type(value)) != "builtins":
            self._opened.add(owner)  # it gets the module
        self.known.update(modules_known(value))
        return functions_in(value, self.names) if self._helpers else []

    def _read(self, function: FunctionType, owner: type | None) -> list[Entry]:
        """Note what a function mentions; return the functions that it may run."""
        self.functions[function] = None
        found, wraps = mentions(function.__code__), "__wrapped__" in function.__dict__
        found = self._others.settled(function, found, owner)
        names = self._names_in(function, found, owner)
        self._note(found, names, owner)
        inner = [function.__dict__.get("__wrapped__"), *map(contents_of, function.__closure__ or ())]
        self.known.update(module for value in values_of(function) for module in modules_known(value))
        entries: list[Entry] = [(each, owner) for each in inner if isinstance(each, FunctionType)]
        if not wraps:  # a decorator is taken to hand on what it is given
            self._open(function, found, owner)
            entries += [] if owner is None else self._helpers_of(function, found.passed, owner)
        hands = owner is None or bool(found.passed) or found.hands_own or not found.handed.isdisjoint(self._leading)
        for value in values_of(function) if self._helpers and hands else ():
            entries += functions_in(value, names)
        return entries

    def _names_in(self, function: FunctionType, found: Mentions, owner: type | None) -> set[str]:
        """Return the names that a function may mention of modules: of anything, if that is what it is given."""
        behind = found.behind
        return {n for v, n in behind if owner is None or v in self._leading or _is_class(function, v)}

    def _note(self, found: Mentions, names: set[str], owner: type | None) -> None:
        """Note what is done under some names, and what is set."""
        for kind in ("read", "called", "elements", "handed"):
            for name in names & getattr(found, kind):
                self._owners[kind, name].add(None if name in found.others else owner)
        self.names |= names & found.names
        self.values |= found.names - found.asked
        for name in found.stored | found.own_stored:
            self._stored[name] |= {None} if name in found.stored else {owner}

    def _open(self, function: FunctionType, found: Mentions, owner: type | None) -> None:
        """Note whether a function may come to modules without their names; others open what they are given."""
        shadowed = any(is_users(function.__globals__.get(name)) for name in found.variables & _KNOWN)
        self.opens = self.opens or found.opens or shadowed
        opens = found.opens_own or (found.hands_own and not self._helpers)
        self._opened |= {owner} if opens and owner is not None else set()

    def stored(self, module: nn.Module) -> set[str]:
        """Return the attributes of a module that the code may set, or in which it may set something."""
        known = {**vars(type(module)), **module.__dict__}
        read = {name for (_, name), owners in self._owners.items() if self._means(owners, module)}
        inside = {name for name in read & known.keys() - REGISTRIES if _can_change(known[name])}
        return inside | {name for name, owners in self._stored.items() if self._means(owners, module)}

    @functools.cached_property
    def changeable(self) -> set[int]:
        """Values by their id in which something can be set, and that the functions know without being given them."""
        return {id(value) for function in self.functions for value in values_of(function) if _can_change(value)}

    def _helpers_of(self, function: FunctionType, names: Iterable[str], owner: type) -> list[Entry]:
        """Return the helper functions that get a method's own module; what else gets it may do anything with it."""
        entries: list[Entry] = []
        for name in names:
            helper = function.__globals__.get(name)
            if isinstance(helper, FunctionType) and is_users(helper):
                entries.append((helper, owner))
                known = not by_keyword(function, helper)
            else:
                known = self._helpers
            self._opened |= set() if known else {owner}
        return entries

    @property
    def calls(self) -> set[str]:
        """The names of what it calls at once."""
        return {name for kind, name in self._owners if kind == "called"}

    def reached(self, hands: Iterable[nn.Module]) -> Reached:
        """Return the modules to which the code may come.

        Args:
            hands: the modules that it is given.
        """
        opened = {inner for module in self.known for inner in paths_below(module)}
        called, held, pending, seen = set[nn.Module](), set[nn.Module](), [*hands], set(opened)
        while pending:
            module = pending.pop()
            if module in seen:
                continue
            seen.add(module)
            called.add(module)
            if self.opens or self._means(self._opened, module):
                found, more = [module], list[nn.Module]()
            else:
                found, more = self._from(module, called)
            below = {inner for each in found for inner in paths_below(each)}
            opened |= below
            seen |= below
            held |= {*more}
            pending += more
        return Reached(called | held | opened, held | opened, opened)

    def _from(self, module: nn.Module, touched: set[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return what the code opens, and what it holds, of a module; note in ``touched`` what it only calls."""
        opened, held = list[nn.Module](), list[nn.Module]()
        for name, child in [(name, child) for name, child in module._modules.items() if child is not None]:
            how = {kind for kind in ("read", "called", "elements", "handed") if self._names(kind, name, module)}
            # A class of the user's may have other elements than its children.
            opens = "handed" in how or ("read" in how and has_elements(child))
            if (opens and not self._helpers) or ("elements" in how and not _plain(child)):
                opened.append(child)
            elif "read" in how or (self._helpers and has_elements(module)):
                held.append(child)
            elif how:
                touched.update((child, *(child.children() if "elements" in how else ())))
        for name, value in module.__dict__.items():
            if name not in REGISTRIES and (type(value) not in ATOMS or type(value) is FunctionType):
                opened += modules_known(value) if name in self.names else ()
        return opened, held

    def _names(self, kind: str, name: str, module: nn.Module) -> bool:
        return (kind, name) in self._owners and self._means(self._owners[kind, name], module)

    def _means(self, owners: Collection[type | None], module: nn.Module) -> bool:
        """Whether what methods of some classes do with their first parameter may be done with a module."""
        return bool(owners) and any(owner in owners for owner in (None, *type(module).__mro__))


def _can_change(value: Any) -> bool:
    """Whether something can be set in a value that is no module: a list, a table, an object."""
    return isinstance(value, (dict, list, set)) or (is_users(type(value)) and not isinstance(value, (type, nn.Module)))


def _is_class(function: FunctionType, name: str) -> bool:
    """Whether a function knows a class, a module, or nothing under the name of a variable."""
    value = function.__globals__.get(name.removeprefix(VARIABLE)) if name.startswith(VARIABLE) else 0
    return value is None or isinstance(value, (type, nn.Module))


def has_elements(module: nn.Module) -> bool:
    """Whether code can come to the children of a module without their names: by a number, a key, or a loop."""
    cls = type(module)
    return isinstance(module, CONTAINERS) or hasattr(cls, "__getitem__") or hasattr(cls, "__iter__")


def _plain(module: nn.Module) -> bool:
    return type(module) in CONTAINERS
