"""What untraced code may use by itself, by the names that it mentions.

Nothing follows assignments, loops or arguments: code that holds a module may use whatever is there under a name that it
mentions, and any element of a container.  What cannot be known may be used.
"""

from __future__ import annotations

import collections
import functools
import inspect
import sys
import weakref
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ATOMS, CONTAINERS, REGISTRIES, ancestors, contents_of, splitting
from fxfuse.modules.origin import is_users
from fxfuse.report.reasons import GIVE_INPUTS, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fxfuse.modules.code import Mentions

_DEPTH = 4  # of objects in objects
# What Python, or torch, calls without its name: not what makes, stores or shows an object.
_UNCALLED = frozenset(
    "__init__ __new__ __repr__ __str__ __dir__ __init_subclass__ __class_getitem__ __post_init__ __getstate__ "
    "__setstate__ __reduce__ __reduce_ex__ __copy__ __deepcopy__ __eq__ __hash__ __del__".split()
)


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield the functions of the user's behind a function, method, property or partial, and what is around them."""
    pending = [value]
    while pending:
        current = pending.pop()
        for name in ("fget", "func", "__func__", "__wrapped__"):
            inner = inspect.getattr_static(current, name, None) if not isinstance(current, type) else None
            inner = getattr(current, name, None) if inner is not None else None
            pending += [inner] if inner is not None else []
        if isinstance(current, FunctionType) and is_users(current):
            yield current


def forwards_of(kind: type, *, above: bool = True) -> list[tuple[FunctionType, type | None]]:
    """Return the forward of a class, with what its calls go through; and those that it replaces, ``above`` it."""
    own = [base for base in kind.__mro__ if is_users(base)]
    found = [[(vars(base)[name], base) for base in own if name in vars(base)] for name in ("forward", "__call__")]
    members = [member for bases in found for member in (bases if above else bases[:1])]
    return [(function, base) for member, base in members for function in functions_of(member)]


def values_of(function: FunctionType) -> Iterator[Any]:
    """Yield what a function knows: variables of its file and from around it, defaults."""
    found = mentions(function.__code__)
    for name in found.variables:
        value = function.__globals__.get(name, sys.modules.get(name))
        yield value if value is not None else sys.modules.get(f"{function.__globals__.get('__package__')}.{name}")
    yield from map(contents_of, function.__closure__ or ())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def objects_in(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an object and those that it holds, but not those in modules; what was ``seen`` only once."""
    seen = set() if seen is None else seen
    pending = [(value, _DEPTH)]
    while pending:
        current, depth = pending.pop()
        if type(current) in _PLAIN or (id(current) in seen and not isinstance(current, nn.Module)):
            continue
        seen.add(id(current))
        yield current
        pending += [(inner, depth - 1) for inner in _inside(current)] if depth else []


_PLAIN = ATOMS - {FunctionType, Tensor, nn.Parameter}


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, weakref.ReferenceType):
        return [value()]
    plain = isinstance(value, SimpleNamespace) or (
        is_users(type(value)) and not isinstance(value, (nn.Module, type, ModuleType, FunctionType, Tensor))
    )
    return list(getattr(value, "__dict__", {}).values()) if plain else ()


class Members:
    """What the classes of a model define, by name; and what its modules hold that is no module.

    Attributes:
        named: name -> functions, each with the class that defines it.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Look at the classes of some modules."""
        self.named: dict[str, list[tuple[FunctionType, type | None]]] = {}
        self.seen: set[Any] = set()
        for module in modules:
            self.add(type(module))
            for name, value in module.__dict__.items():
                if name not in REGISTRIES and type(value) not in ATOMS - {FunctionType}:
                    self._add_held(name, value)

    def add(self, kind: Any) -> None:
        """Add what a class, or a Python module, defines."""
        for base in kind.__mro__ if isinstance(kind, type) else (kind,):
            if base in self.seen or not is_users(base):
                continue
            self.seen.add(base)
            owner = base if isinstance(base, type) else None
            for name, value in vars(base).items():
                for function in functions_of(value) if not isinstance(value, type) else ():
                    self.named.setdefault(name, []).append((function, owner))

    def _add_held(self, name: str, value: Any) -> None:
        for held in objects_in(value):
            for function in functions_of(held):
                self.named.setdefault(name, []).append((function, None))
            if not isinstance(held, (nn.Module, type, ModuleType)):
                self.add(type(held))

    def called_by(self, module: nn.Module, *, above: bool = True) -> list[tuple[FunctionType, type | None]]:
        """Return what a call of a module runs, if its forward was not traced.

        Args:
            module: the module.
            above: whether forwards that its class replaces may run too.
        """
        replaced = [(function, None) for function in functions_of(module.__dict__.get("forward"))]
        return [*forwards_of(type(module), above=above), *replaced]

    @property
    def implicit(self) -> list[tuple[FunctionType, type | None]]:
        """What is called without its name."""
        names = [name for name in self.named if name.startswith("__") and name not in _UNCALLED]
        return [entry for name in names for entry in self.named[name]]


_CALLING = frozenset(["forward", "__call__", *(container.__name__ for container in CONTAINERS)])
_ABOVE = frozenset(["forward", "__call__"])  # who names them may run what a class replaces
_ALL = "*"  # among the names that are read: every child, also of the children
_Own: TypeAlias = "dict[type, tuple[set[str], set[str]]]"


class Code:
    """Functions, and all that they may call by name.

    Attributes:
        read: names that are read.
        called: names that are called at once.
        own: class -> what its methods read of their first parameter, and call at once; those that the code begins
            with are apart, since they are not called on others.
        stored: names that are set, of anything but their first parameter.
        all_stored: names that are set.
        names: all names that are read or called.
        values: those of which more is asked than the shape or the like.
        all_called: those that are called at once.
        opens: whether a method among them may come to modules without their names.
        helpers_open: whether a function that is no method may.
        calls: whether they may call what an expression gives, or what they are given by one another.
        known: what they know without having been given it.
    """

    def __init__(
        self, members: Members, functions: Iterable[tuple[FunctionType, type | None]], *, unseen: bool = True
    ) -> None:
        """Read functions, each with the class that defines it.

        Args:
            members: what else they may call by name.
            functions: the functions.
            unseen: whether what comes to modules without their names counts also where it calls none of them; and
                whether classes beside those of the model are looked into.
        """
        self._unseen = unseen
        self.read: set[str] = set()
        self.called: set[str] = set()
        self.own: _Own = {}
        self.stored: set[str] = set()
        self.all_stored: set[str] = set()
        self.names: set[str] = set()
        self.values: set[str] = set()
        self.all_called: set[str] = set()
        self.opens = self.helpers_open = False
        self.calls = False
        self.known: list[Any] = []
        self._members = members
        self._seen: set[Any] = set()
        self._ids: set[int] = set()
        self._pending = [*functions]
        self._first = set(self._pending)
        self._of_given: _Own = {}
        while self._pending:
            function, owner = self._pending.pop()
            if (function, owner) in self._seen:
                continue
            self._seen.add((function, owner))
            self._read(function, owner)
            if not self._pending:
                named = (members.named.get(name, ()) for name in self.names if name != "forward")
                self._pending = [entry for entries in named for entry in entries if entry not in self._seen]

    def _read(self, function: FunctionType, owner: type | None) -> None:
        found = mentions(function.__code__)
        of_given = self._of_given if (function, owner) in self._first else self.own
        own = of_given.setdefault(owner, (set(), set())) if owner is not None else (self.read, self.called)
        own[0].update(found.own_read, {_ALL} if found.own_opens and self._counts(found) else ())
        own[1].update(found.own_called)
        self.read |= found.read
        self.called |= found.called
        self.names |= found.names
        self.values |= found.names - found.asked
        self.all_called |= found.called | found.own_called
        self.stored |= found.stored | (found.own_stored if owner is None else set())
        self.all_stored |= found.stored | found.own_stored
        opens = bool(found.opens) and self._counts(found)
        self.opens = self.opens or (opens and owner is not None)
        self.helpers_open = self.helpers_open or (opens and owner is None)
        self.calls = (
            self.calls or found.calls_values or (found.calls_parameters and (function, owner) not in self._first)
        )
        for value in values_of(function):
            for held in objects_in(value, self._ids):
                self.known.append(held)
                self._pending += [(inner, None) for inner in functions_of(held)]
                if self._unseen and not isinstance(held, (nn.Module, FunctionType)):
                    self._members.add(held if isinstance(held, (type, ModuleType)) else type(held))
                if isinstance(held, type) and issubclass(held, nn.Module) and "forward" in found.names:
                    self._pending += forwards_of(held)  # Base.forward(self, x)

    def _counts(self, found: Mentions) -> bool:
        """Whether it counts that a function may come to modules without their names."""
        calls = found.calls_values or not _CALLING.isdisjoint(found.names)
        return self._unseen or (calls and "modules" in found.opens | found.own_opens)

    @property
    def functions(self) -> list[FunctionType]:
        """All functions that were read."""
        return [function for function, _ in self._seen]

    def touched(self, hands: Iterable[nn.Module]) -> set[nn.Module]:
        """Return the modules that the code may call, or look into, by themselves.

        Args:
            hands: the modules that it is given.
        """
        given = set(hands)
        pending = [*given, *(value for value in self.known if isinstance(value, nn.Module))]
        held, touched = set(pending), set(pending)
        while pending:
            module = pending.pop()
            own = [self.own, self._of_given] if module in given or "forward" in self.names else [self.own]
            for child in self._from(module, own, touched):
                if child not in held:
                    held.add(child)
                    pending.append(child)
        return touched | held

    def _from(self, module: nn.Module, methods: list[_Own], touched: set[nn.Module]) -> Iterator[nn.Module]:
        """Yield what the code may take from a module; note in ``touched`` what it calls at once."""
        own = [names[cls] for names in methods for cls in type(module).__mro__ if cls in names]
        read = self.read.union(*(names for names, _ in own))
        called = self.called.union(*(names for _, names in own))
        everything = self.opens or has_elements(module)
        if _ALL in read:
            yield from module.modules()
        for name, child in module._modules.items():
            if child is not None and (everything or name in read):
                yield child
            elif child is not None and name in called:
                touched.add(child)
        for name, value in module.__dict__.items():
            if name not in REGISTRIES and type(value) not in ATOMS and (self.opens or name in read or name in called):
                yield from (held for held in objects_in(value) if isinstance(held, nn.Module))


# What a layer notes of itself, and what gives all of it.
_NOTED = frozenset(
    "weight bias in_channels out_channels in_features out_features num_features kernel_size stride padding dilation "
    "groups padding_mode parameters named_parameters state_dict buffers named_buffers".split()
)


def reads_layers(model: nn.Module) -> bool:
    """Whether code of the user's may read the sizes, the weights or the like of another module.

    Where it goes on running, it must find there what it found before.

    Example:
        >>> import torch
        >>> reads_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        False
    """
    modules = list(model.modules())
    members = Members(modules)
    entries = [entry for cls in {type(module) for module in modules} for entry in forwards_of(cls)]
    code = Code(members, [*entries, *members.implicit])
    return not _NOTED.isdisjoint(code.read | code.called)


def has_elements(module: nn.Module) -> bool:
    """Whether code can come to the children of a module without their names: by a number, a key, or a loop."""
    cls = type(module)
    return isinstance(module, CONTAINERS) or hasattr(cls, "__getitem__") or hasattr(cls, "__iter__")


class Names:
    """What the untraced code of a model may use by itself.

    A fold holds if all that may use one of its modules uses, at the least, a module that holds all of them: that one
    gives what it gave.
    """

    def __init__(self, paths: Mapping[nn.Module, str], opaque: Mapping[nn.Module, str], *, given: bool = False) -> None:
        """Look at the code of the modules that were not traced.

        Args:
            paths: the modules of the model, with their paths.
            opaque: those of which the own forward was not traced, and why.
            given: whether there are example inputs, so that nobody is told to pass some.
        """
        self._advice = "" if given else GIVE_INPUTS
        self._paths = paths
        self._opaque = opaque
        self._members = Members(paths) if opaque else Members(())
        self._above = ancestors(paths) if opaque else {}
        self._codes = [
            self._code_of(module) for module in opaque if self._above[module].isdisjoint(opaque.keys() - {module})
        ]

    def _code_of(self, outermost: nn.Module) -> tuple[nn.Module, Code, set[nn.Module]]:
        """Return the untraced code in a module, with what it may use by itself."""
        inside = [module for module in self._opaque if outermost in self._above[module]]
        for above in (False, True):
            entries = [entry for module in inside for entry in self._members.called_by(module, above=above)]
            code = Code(self._members, [*entries, *self._members.implicit])
            if _ABOVE.isdisjoint(code.names):
                break
        code.opens = (
            code.opens or code.helpers_open or not {"train", "eval"}.isdisjoint(code.names)
        )  # the latter switches what is inside
        return outermost, code, code.touched(inside)

    def refusal(self, modules: Collection[nn.Module]) -> Refusal | None:
        """Return why untraced code forbids a fold, None if it does not.

        Args:
            modules: those that the fold changes.
        """
        split = splitting(modules, self._above) if self._codes and modules else frozenset()
        for outermost, code, touched in self._codes:
            if not touched.isdisjoint(split) or any(_reads(code, touched, m) for m in modules):
                return self._refusal_of(outermost)
        return None

    def read(self) -> dict[nn.Module, Refusal]:
        """Return the modules of which untraced code may read the tensors by themselves, each with a refusal."""
        codes = [(code, touched, self._refusal_of(outermost)) for outermost, code, touched in self._codes]
        return {m: refusal for code, touched, refusal in codes for m in touched if _reads(code, touched, m)}

    def _refusal_of(self, outermost: nn.Module) -> Refusal:
        value = self._paths[outermost] or type(outermost).__name__
        return Refusal(Reason.OPAQUE, value=value, detail=self._opaque[outermost], advice=self._advice)

    def require(self, modules: Collection[nn.Module]) -> None:
        """Refuse a fold that untraced code forbids; see ``refusal``."""
        refusal = self.refusal(modules)
        if refusal is not None:
            raise refusal

    def switched(self, modules: Iterable[nn.Module]) -> set[nn.Module]:
        """Return those modules of which untraced code may set an attribute that their code reads."""
        found: set[nn.Module] = set()
        for module in modules:
            stored = {
                name for outermost, code, _ in self._codes if outermost in self._above[module] for name in code.stored
            }
            entries = forwards_of(type(module)) if stored else []
            if entries and not stored.isdisjoint(Code(self._members, entries).names):
                found.add(module)
        return found


def _reads(code: Code, touched: Collection[nn.Module], module: nn.Module) -> bool:
    """Whether code that may come to a module mentions one of its tensors, for more than its shape or dtype."""
    return module in touched and not code.values.isdisjoint((*module._parameters, *module._buffers))
