"""What the classes of a model define, by name."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.capture.known_objects import functions_of, objects_in
from fxfuse.modules.lookup import ATOMS, REGISTRIES
from fxfuse.modules.origin import is_users

if TYPE_CHECKING:
    from collections.abc import Iterable


# What Python, or torch, calls without its name: not what makes, stores or shows an object.
_UNCALLED = frozenset(
    "__init__ __new__ __repr__ __str__ __dir__ __init_subclass__ __class_getitem__ __post_init__ __getstate__ "
    "__setstate__ __reduce__ __reduce_ex__ __copy__ __deepcopy__ __eq__ __hash__ __del__".split()
)


def forwards_of(kind: type, *, above: bool = True) -> list[tuple[FunctionType, type | None]]:
    """Return the forward of a class, with what its calls go through; and those that it replaces, ``above`` it."""
    own = [base for base in kind.__mro__ if is_users(base)]
    found = [[(vars(base)[name], base) for base in own if name in vars(base)] for name in ("forward", "__call__")]
    members = [member for bases in found for member in (bases if above else bases[:1])]
    return [(function, base) for member, base in members for function in functions_of(member)]


class Members:
    """What the classes of a model define, by name; and what its modules hold that is no module.

    Attributes:
        named: name -> functions, each with the class that defines it.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Look at the classes of some modules."""
        self.named: dict[str, list[tuple[FunctionType, type | None]]] = {}
        self._seen: set[Any] = set()
        self._holding: set[type | None] = {None}
        modules = list(modules)
        self._kinds = {base for kind in {type(module) for module in modules} for base in kind.__mro__}
        for module in modules:
            self.add(type(module))
            for name, value in module.__dict__.items():
                if name not in REGISTRIES and type(value) not in ATOMS - {FunctionType}:
                    self._add_held(name, value)

    def add(self, kind: Any) -> None:
        """Add what a class, or a Python module, defines."""
        for base in kind.__mro__ if isinstance(kind, type) else (kind,):
            if base in self._seen or not is_users(base):
                continue
            self._seen.add(base)
            for name, value in vars(base).items():
                owner = self.owner(base, value)
                for function in functions_of(value) if not isinstance(value, type) else ():
                    self.named.setdefault(name, []).append((function, owner))

    def owner(self, base: Any, value: Any) -> type | None:
        """Return the class of the first parameter of what a class defines: None where it may be anything."""
        bound = isinstance(base, type) and not isinstance(value, (staticmethod, classmethod))
        return base if bound and (base in self._kinds or not issubclass(base, nn.Module)) else None

    def _add_held(self, name: str, value: Any) -> None:
        inside = list(objects_in(value))
        holds = any(isinstance(held, nn.Module) or callable(held) for held in inside)
        for held in inside:
            for function in functions_of(held):
                self.named.setdefault(name, []).append((function, None))
            if not isinstance(held, (nn.Module, type, ModuleType)):
                self.add(type(held))
                self._holding.update(type(held).__mro__ if holds else ())

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
        """What is called without its name, of modules and of objects that hold some: a configuration comes to none."""
        names = [name for name in self.named if name.startswith("__") and name not in _UNCALLED]
        return [entry for name in names for entry in self.named[name] if self._comes_to_modules(entry[1])]

    def _comes_to_modules(self, owner: type | None) -> bool:
        return owner in self._holding or (owner is not None and issubclass(owner, nn.Module))
