"""What hooks on blocks may do to the layers inside, and to what forwards read; found in their code.

Tracing does not run hooks.  So a hook that may come to a layer keeps it as it is, and a forward that may read what a
hook writes is not traced.
"""

from __future__ import annotations

import ast
import functools
import inspect
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fxfuse.call import is_hooked
from fxfuse.decorated import wrappers_of
from fxfuse.hidden_ways import leads_nowhere
from fxfuse.known_objects import (
    captured,
    is_module,
    is_mutable,
    is_setting,
    is_torchs,
    members,
    modules_in,
    names_in_class,
    names_of,
)
from fxfuse.operator_table import operator_of
from fxfuse.python_source import is_name, nodes_of, parents_of, spares_first, trees_of
from fxfuse.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import CodeType

_ASKS = frozenset("id hash str repr print len hasattr".split())
_CLASSES = frozenset("type isinstance".split())
_KEYS = frozenset("get pop setdefault add discard append debug info warning log format".split())
_TEXT = frozenset("eval exec locals vars globals".split())
_REGISTRIES = frozenset(nn.Module().__dict__) - {"training"}


@dataclass
class HookEffects:
    """What the hooks of a model may do.

    Attributes:
        paths: the modules of the model.
        inside: modules of which the layers may be used, or changed.
        known: modules that code knows by themselves, of which no graph can take the place.
        written: names of attributes and variables that are set.
        shared: objects that may be changed.
    """

    paths: Mapping[nn.Module, str]
    inside: dict[nn.Module, nn.Module] = field(default_factory=dict)
    known: set[nn.Module] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    shared: list[Any] = field(default_factory=list)

    @staticmethod
    def of(paths: Mapping[nn.Module, str]) -> HookEffects:
        """Read the hooks of all modules of a model that run in a forward pass."""
        effects = HookEffects(paths)
        for module in [module for module in paths if is_hooked(module)]:
            for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
                effects.read(module, hook)
        return effects

    def read(self, module: nn.Module, hook: Any) -> None:
        """Note what a hook of a module may do."""
        try:
            _Reader(self, module).read(hook)
        except Exception:  # noqa: BLE001 - what cannot be read, for whatever reason, may do anything
            self.look(next(iter(self.paths)), module)

    def look(self, module: nn.Module, hooked: nn.Module) -> None:
        """Note that a hook may come to the layers in a module."""
        if operator_of(module) is None or module is not hooked:  # a layer with a hook stays anyway
            self.inside.setdefault(module, hooked)

    def kept(self) -> dict[nn.Module, Refusal]:
        """Return the modules that must stay as they are."""
        refusals = {m: Refusal(Reason.HOOKED, value=self.paths[m] or type(m).__name__) for m in self.inside.values()}
        return {inner: refusals[hooked] for module, hooked in self.inside.items() for inner in module.modules()}

    def untraceable(self) -> set[nn.Module]:
        """Return the modules of which a graph would not do what they do."""
        found = {*self.inside, *self.known}
        for module in self.paths if self.written or self.shared else ():
            if not self.written.isdisjoint(names_in_class(type(module))) or self._shares(module):
                found.add(module)
        return {module for module in found if operator_of(module) is None}

    def _shares(self, module: nn.Module) -> bool:
        wanted = {id(value) for value in self.shared}
        return any(id(value) in wanted for value in members(module))


class _Reader:
    """Reads the hooks of one module."""

    def __init__(self, effects: HookEffects, hooked: nn.Module) -> None:
        self.effects = effects
        self.hooked = hooked
        self.seen: set[int] = set()

    def read(self, hook: Any) -> None:
        """Note what a hook may do."""
        given: list[Any] = []
        while isinstance(hook, functools.partial):
            given = [*hook.args, *given]
            for value in hook.keywords.values():
                self._know(value, None)
            hook = hook.func
        if isinstance(hook, nn.Module):
            raise TypeError("its forward is another module's")
        hook = hook if hasattr(hook, "__code__") else hook.__call__
        if inspect.ismethod(hook):
            given, hook = [hook.__self__, *given], hook.__func__
        plain = inspect.unwrap(hook)
        if is_torchs(plain):
            return
        for around in wrappers_of(hook):
            self._unread(around, [])
        if wrappers_of(hook):
            self._unread(plain, [*given, self.hooked])
        else:
            self._function(plain, [*given, self.hooked])

    def _unread(self, function: Any, given: list[Any]) -> None:
        """Note what a function may do of which the source says nothing."""
        for value in (*captured(function).values(), *given):
            self._know(value, None, from_outside=value is not self.hooked)

    def _function(self, function: Any, given: list[Any]) -> None:
        """Read a function that gets some arguments first."""
        code = function.__code__
        if id(code) in self.seen:
            return
        self.seen.add(id(code))
        taken = code.co_varnames[: code.co_argcount]
        known = {**captured(function), **dict(zip(taken, given, strict=False))}
        rest = given[len(taken) :]
        try:
            trees = trees_of(function)
        except (OSError, TypeError, SyntaxError):
            trees = []
        if not trees or any(is_name(n, *_TEXT) for tree in trees for n in nodes_of(tree)):
            self._unread(function, given)
        for tree in trees:
            self.effects.written |= {name for node in nodes_of(tree) for name in _declared(node)}
            for name, value in known.items():
                use = _Use(tree, name, code)
                if use.nodes:
                    self._know(value, use, from_outside=value is not self.hooked)
            if rest and not spares_first(tree, code, len(rest)):
                self._unread(function, rest)

    def _know(self, value: Any, use: _Use | None, *, from_outside: bool = True) -> None:
        """Note what a function may do with a value that it knows by a name; in any way, where that is not known."""
        if isinstance(value, weakref.ProxyTypes):
            raise TypeError("it could be anything")
        plain = inspect.unwrap(value) if callable(value) and not is_module(value) else value
        if is_module(value) and value in self.effects.paths:
            self.effects.known |= {value} if from_outside else set()
            if use is None or not all(self._is_harmless(node, use, value) for node in use.nodes):
                self.effects.look(value, self.hooked)
        elif inspect.ismethod(plain) or inspect.isfunction(plain):
            bound = [plain.__self__] if inspect.ismethod(plain) else []
            if not is_torchs(plain):
                self._function(inspect.unwrap(getattr(plain, "__func__", plain)), bound)
        elif not inspect.isroutine(value) and not is_setting(value):
            for module in modules_in(value, None if use is None else names_of(use.code), self.effects.paths):
                self.effects.look(module, self.hooked)
            self.effects.shared += [value] if is_mutable(value) else []

    def _is_harmless(self, node: ast.AST, use: _Use, module: nn.Module) -> bool:
        """Whether a hook only asks a module for settings, notes things on it, or uses it as a key."""
        parent = parents_of(use.tree)[node]
        if isinstance(parent, ast.Attribute):
            return self._is_attribute_harmless(parent, use, module)
        if isinstance(parent, ast.Call):
            if is_name(parent.func, *_CLASSES):
                wanted = ast.unparse(parent.args[-1])
                named = getattr(parents_of(use.tree).get(parent), "attr", "") == "__name__" or wanted == "nn.Module"
                self.effects.known |= set() if named else {module}
                return True
            of_keys = isinstance(parent.func, ast.Attribute) and parent.func.attr in _KEYS
            return parent.func is not node and (of_keys or is_name(parent.func, *_ASKS))
        if isinstance(parent, ast.Subscript):
            return parent.slice is node
        return isinstance(parent, (ast.Compare, ast.FormattedValue))

    def _is_attribute_harmless(self, node: ast.Attribute, use: _Use, module: nn.Module) -> bool:
        name = node.attr
        if not isinstance(node.ctx, ast.Load):
            self.effects.written.add(name)
            return not any(name in registry for registry in (module._modules, module._parameters, module._buffers))
        if name == "__class__":
            self.effects.known |= (
                set() if getattr(parents_of(use.tree).get(node), "attr", "") == "__name__" else {module}
            )
            return True
        if name in ("training", "_get_name"):
            return True
        if name in _REGISTRIES:
            return False
        held = module.__dict__.get(name, _ABSENT)
        if held is _ABSENT:  # set by the hook itself, later
            return not hasattr(module, name)
        if is_mutable(held):
            self.effects.shared.append(held)
        return leads_nowhere(held)


_ABSENT = object()


class _Use(NamedTuple):
    """A name in a function.

    Attributes:
        tree: the syntax tree of the function.
        name: the name.
        code: the code of the function.
    """

    tree: ast.AST
    name: str
    code: CodeType

    @property
    def nodes(self) -> list[ast.AST]:
        """Where the name is mentioned."""
        return [node for node in nodes_of(self.tree) if is_name(node, self.name)]


def _declared(node: ast.AST) -> Iterable[str]:
    """Return the variables of others that a function sets."""
    return node.names if isinstance(node, (ast.Global, ast.Nonlocal)) else ()
