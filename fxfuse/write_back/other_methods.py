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

from fxfuse.capture.names import Code, Members, forwards_of, functions_of
from fxfuse.modules.code import returns_nothing
from fxfuse.modules.lookup import look_up
from fxfuse.modules.origin import is_users
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.replacements import folded_modules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from types import FunctionType

    from torch import nn

    from fxfuse.capture.capture import Capture, Part
    from fxfuse.edit.editor import Editor

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
        return Code(self.members, self.functions)

    @functools.cached_property
    def touched(self) -> set[nn.Module]:
        """The modules that it may use by themselves."""
        return self.code.touched([self.module])

    @property
    def takes_input(self) -> bool:
        """Whether it is given anything besides its module."""
        codes = [function.__code__ for function, _ in self.functions]
        return any(code.co_argcount + code.co_kwonlyargcount > 1 or code.co_flags & 0xC for code in codes)

    def divides(self, fold: Collection[nn.Module]) -> set[nn.Module]:
        """Return what it computes with that holds a part of a fold, and not all of it."""
        found = {module for module in self.touched if _is_part(frozenset(module.modules()), fold)} if len(fold) > 1 else set()
        names = {name for module in self.module.modules() for name, child in module._modules.items() if child in found}
        tensors = {name for module in fold for name in (*module._parameters, *module._buffers)}
        calls = self.code.calls or not self.code.all_called.isdisjoint({*names, "forward", "__call__"})
        computes = calls or (self.takes_input and not tensors.isdisjoint(self.code.names))
        return found if computes else set()


def _is_part(inside: Collection[nn.Module], fold: Collection[nn.Module]) -> bool:
    shared = [module for module in fold if module in inside]
    return 0 < len(shared) < len(fold)


class OtherMethods:
    """The methods beside ``forward`` that somebody may call on a model that keeps its classes."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        """Look at the classes of the modules at some paths."""
        self._paths = paths
        self._members = Members(paths)
        self._kinds: dict[type, dict[str, tuple[list[tuple[FunctionType, type | None]], bool]]] = {}
        self._methods: dict[nn.Module, list[_Method]] = {}

    def refusal(self, modules: Collection[nn.Module], *, onwards: bool) -> Refusal | None:
        """Return why a fold would change what a method gives, None if none is known to.

        Args:
            modules: those that the fold changes.
            onwards: whether the values between are others, as a norm goes into what follows.
        """
        for method in self.methods() if len(modules) > 1 else ():
            split = method.divides(modules) if onwards or not method.used else ()
            if split:
                alone = ", ".join(sorted(self._paths[module] for module in split))
                return Refusal(Reason.REACHED_INTO, value=alone, users=self.name_of(method))
        return None

    def name_of(self, method: _Method) -> str:
        """Return the path of a method."""
        return f"{self._paths[method.module] or type(method.module).__name__}.{method.name}"

    def methods(self) -> Iterator[_Method]:
        """Yield the methods of all modules."""
        for module in self._paths:
            if module not in self._methods:
                found = self._of_class(type(module))
                self._methods[module] = [_Method(module, name, *entry, self._members) for name, entry in found.items()]
            yield from self._methods[module]

    def _of_class(self, kind: type) -> dict[str, tuple[list[tuple[FunctionType, type | None]], bool]]:
        """Return the methods of a class that may give a value, each with its functions and whether the forward uses it."""
        if kind in self._kinds:
            return self._kinds[kind]
        found: dict[str, list[tuple[FunctionType, type | None]]] = {}
        for base in [base for base in kind.__mro__ if is_users(base)]:
            for name, value in vars(base).items():
                plain = not isinstance(value, (staticmethod, classmethod, type)) and name not in ("forward", *found)
                if plain and not name.startswith("__") and not any(word in name for word in _FOR_THE_FUSED):
                    found[name] = [(f, base) for f in functions_of(value) if not returns_nothing(f.__code__)]
        forward = Code(self._members, forwards_of(kind)).names if any(found.values()) else set()
        self._kinds[kind] = {
            name: (functions, name in forward)
            for name, functions in found.items()
            if functions and not (name in forward and name.startswith("_"))
        }
        return self._kinds[kind]


def changed_elsewhere(captured: Capture, edits: Iterable[tuple[Part, Editor]]) -> dict[nn.Module, Refusal]:
    """Return the modules that must stay, since another method calls only a part of what was folded."""
    edits, others = list(edits), OtherMethods(captured.paths)
    result: dict[nn.Module, Refusal] = {}
    for way in (False, True):
        for fold in folded_modules(edits, onwards=way):
            refusal = others.refusal(fold, onwards=way)
            result |= dict.fromkeys(fold - result.keys(), refusal) if refusal is not None else {}
    return result


def read_elsewhere(
    model: nn.Module, replaced: Mapping[nn.Module, nn.Module], paths: Mapping[nn.Module, str]
) -> dict[nn.Module, Refusal]:
    """Return the modules that must stay, since another method reads a tensor of theirs that changed.

    Layers are read with the norms that went into them: ``changed_elsewhere`` looks after these.

    Args:
        model: the model.
        replaced: modules of the user's, each with what takes its place.
        paths: where they stand in the model.
    """
    changed = {m: names for m, new in replaced.items() if is_users(m) and (names := _changed(m, new))}
    result: dict[nn.Module, Refusal] = {}
    others = OtherMethods(paths) if changed else None
    for method in others.methods() if others is not None else ():
        for module, names in changed.items():
            if module in method.touched and not names.isdisjoint(method.code.names):
                assert others is not None  # noqa: S101 - it has the method
                value = paths[module] or type(module).__name__
                result[module] = Refusal(Reason.REACHED_INTO, value=value, users=others.name_of(method))
    return result


def _changed(module: nn.Module, new: nn.Module) -> set[str]:
    """Return the names of the tensors of a module that are others in the new one."""
    names = {*module._parameters, *module._buffers, *look_up(module, "parametrizations", default={})}
    return {name for name in names if look_up(new, name) is not look_up(module, name)}
