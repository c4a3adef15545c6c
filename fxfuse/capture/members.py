"""What the classes of a model define, by name."""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from fxfuse.capture.known_objects import functions_of
from fxfuse.modules.origin import is_users

if TYPE_CHECKING:
    from collections.abc import Collection

Entry: TypeAlias = "tuple[Any, type | None]"
"""Something that code may run, and the class of its first parameter, None for anything."""

# What neither Python nor torch calls while a model runs.
UNCALLED = frozenset(
    "__init__ __new__ __init_subclass__ __class_getitem__ __post_init__ __repr__ __str__ __dir__ __getstate__ "
    "__setstate__ __reduce__ __reduce_ex__ __copy__ __deepcopy__ __eq__ __hash__ __del__".split()
)


def forwards_of(kind: type, *, above: bool = True) -> list[Entry]:
    """Return the forward of a class, with what its calls go through; and those that it replaces, ``above`` it."""
    own = [base for base in kind.__mro__ if is_users(base)]
    found = [[(vars(base)[name], base) for base in own if name in vars(base)] for name in ("forward", "__call__")]
    return [entry for entries in found for entry in (entries if above else entries[:1])]


_QUIET = UNCALLED - {"__init__", "__new__", "__post_init__"}  # of an object that is made


def functions_in(value: Any, names: Collection[str]) -> list[Entry]:
    """Return the functions that a value may run: those of a class by their names, unless objects of it are made."""
    if not isinstance(value, type):
        return [(function, None) for function in functions_of(value)]
    made = not issubclass(value, nn.Module)
    bases = [base for base in value.__mro__ if is_users(base)]
    members = [(name, member) for base in bases for name, member in vars(base).items()]
    return [(member, None) for name, member in members if name in names or (made and name not in _QUIET)]


class Members:
    """What the classes of modules define, by name.

    Attributes:
        named: name -> what has it; of "forward", what classes replace, to which code may come by ``super()``.
        implicit: what Python calls without a name.
        children: the names of all modules in them.
        kinds: their classes.
    """

    def __init__(self, modules: Collection[nn.Module]) -> None:
        """Look at the classes of some modules."""
        self.named: dict[str, list[Entry]] = defaultdict(list)
        self.implicit: list[Entry] = []
        # TorchScript gives names only with what they are of.
        self.children = {name for module in modules for name, _ in module._modules.items()}
        self.kinds = dict.fromkeys(map(type, modules))
        self._held = {name for module in modules for name in module.__dict__}
        for base in dict.fromkeys(base for kind in self.kinds for base in kind.__mro__):
            for name, value in vars(base).items() if is_users(base) else ():
                dunder = name.startswith("__") and name != "__call__"
                if name not in UNCALLED and name != "forward":
                    (self.implicit if dunder else self.named[name]).append((value, base))
        for kind in self.kinds:
            replaced = [entry for entry in forwards_of(kind) if entry not in forwards_of(kind, above=False)]
            for name in ("forward", "__call__"):
                self.named[name] += replaced

    def beginning(self, text: str) -> set[str] | None:
        """Return the names of theirs that begin with a text, None if there may be others: of what torch defines."""
        bases = {base for kind in self.kinds for base in kind.__mro__ if not is_users(base)}
        if any(name.startswith(text) for base in bases for name in vars(base)):
            return None
        return {name for name in (*self.children, *self.named, *self._held) if name.startswith(text)}

    def methods(self, name: str, owner: type) -> list[Entry]:
        """Return what instances of a class may have as a method, each with the class; none if it is unknown."""
        kinds = [] if name in self._held else [kind for kind in self.kinds if owner in kind.__mro__]
        return [(inspect.getattr_static(kind, name, None), kind) for kind in kinds]
