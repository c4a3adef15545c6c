"""The code of one hook, read for what it may do with the modules and objects that it knows."""

from __future__ import annotations

import ast
import functools
import inspect
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fxfuse.modules.lookup import REGISTRIES, is_module
from fxfuse.source.decorators import wrappers_of
from fxfuse.source.hidden_access import leads_nowhere
from fxfuse.source.objects import captured, is_mutable, is_setting, is_torchs, modules_in, names_of
from fxfuse.source.syntax import is_name, nodes_of, parents_of, spares_first, trees_of

if TYPE_CHECKING:
    from types import CodeType

    from fxfuse.source.hook_effects import HookEffects

_ASKS = frozenset("id hash str repr print len hasattr".split())
_CLASSES = frozenset("type isinstance".split())
_KEYS = frozenset("get pop setdefault add discard append debug info warning log format".split())
_TEXT = frozenset("eval exec locals vars globals".split())


class HookReader:
    """Reads the hooks of one module."""

    def __init__(self, effects: HookEffects, hooked: nn.Module) -> None:
        """Note in ``effects`` what hooks of ``hooked`` may do."""
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
        for value in captured(function).values():
            self._know(value, None)
        for value in given:
            self._know(value, None, from_outside=value is not self.hooked)

    def _function(self, function: Any, given: list[Any]) -> None:
        """Read a function that gets some arguments first."""
        code = function.__code__
        if id(code) in self.seen:
            return
        self.seen.add(id(code))
        taken = code.co_varnames[: code.co_argcount]
        arguments = dict(zip(taken, given, strict=False))
        known = {**captured(function), **arguments}
        rest = given[len(taken) :]
        try:
            trees = trees_of(function)
        except (OSError, TypeError, SyntaxError):
            trees = []
        if not trees or any(is_name(n, *_TEXT) for tree in trees for n in nodes_of(tree)):
            self._unread(function, given)
        for tree in trees:
            others = [node for node in nodes_of(tree) if isinstance(node, (ast.Global, ast.Nonlocal))]
            self.effects.written |= {name for node in others for name in node.names}
            for name, value in known.items():
                use = _Use(tree, name, code)
                if use.nodes:
                    self._know(value, use, from_outside=name not in arguments or value is not self.hooked)
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
            held = [*value.values()] if use is not None and _is_looked_up(value, use) else value
            for module in modules_in(held, None if use is None else names_of(use.code), self.effects.paths):
                self.effects.look(module, self.hooked)
            self.effects.shared += [value] if is_mutable(value) else []

    def _is_harmless(self, node: ast.AST, use: _Use, module: nn.Module) -> bool:
        """Whether a hook only asks a module for settings, notes things on it, or uses it as a key."""
        parent = parents_of(use.tree)[node]
        if isinstance(parent, ast.Attribute):
            return self._is_attribute_harmless(parent, use, module)
        if isinstance(parent, ast.Call):
            if is_name(parent.func, *_CLASSES):
                plain = _is_named(parent, use) or ast.unparse(parent.args[-1]) == "nn.Module"
                self.effects.known |= set() if plain else {module}
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
            self.effects.known |= set() if _is_named(node, use) else {module}
            return True
        if name in ("training", "_get_name"):
            return True
        if name in REGISTRIES:
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


def _is_named(asked: ast.AST, use: _Use) -> bool:
    """Whether only the name of a class is asked for."""
    return getattr(parents_of(use.tree).get(asked), "attr", "") == "__name__"


def _is_looked_up(table: Any, use: _Use) -> bool:
    """Whether a function only asks a dictionary for values by their keys."""
    parents = [parents_of(use.tree)[node] for node in use.nodes]
    asked = (isinstance(p, ast.Subscript) or (isinstance(p, ast.Attribute) and p.attr == "get") for p in parents)
    return isinstance(table, dict) and all(asked)
