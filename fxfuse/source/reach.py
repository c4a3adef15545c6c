"""How Python code that could not be traced reaches the modules below it, read from its source.

A fold inside of a module is only proven if the code around it calls that module as a whole.  So the source of an
untraceable forward, and of every method that it uses, is searched for all the ways in which it reaches children:
calls, with what arguments; loops over containers; attributes of children; other methods of theirs.
"""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.graph.registry import operator_of
from fxfuse.operators.roles import AffineSource
from fxfuse.source.decorators import looks_into_rest, sources_of
from fxfuse.source.method_reader import MethodReader
from fxfuse.source.syntax import (
    Source,
    defining_class,
    is_name,
    nodes_of,
    plain_function,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Reach:
    """What untraced code does with the modules below it.

    Attributes:
        called: module -> whether every call that was found passes its required arguments only.
        entered: module -> names of its methods, other than forward, that are called.
        escaped: modules that are handed to code that is not read, and are among ``called`` for that alone.
        read: modules of which an attribute or a tensor is read by name.
        kept: modules of which an attribute or a tensor is read, and which must stay what they are.
        own: names of the module's own attributes that are read, those of methods among them.
        own_shapes: the same, where only the shape, the dtype or the like is asked for.
        unknown: why the code could not be read; empty if it was.
        entries: the methods that were read.
    """

    called: dict[nn.Module, bool] = field(default_factory=dict)
    entered: dict[nn.Module, set[str]] = field(default_factory=dict)
    escaped: set[nn.Module] = field(default_factory=set)
    read: set[nn.Module] = field(default_factory=set)
    kept: set[nn.Module] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    own_shapes: set[str] = field(default_factory=set)
    unknown: str = ""
    entries: tuple[str, ...] = ()


def reach(module: nn.Module, entries: Iterable[str] = ("forward",)) -> Reach:
    """Return how the methods ``entries`` of a module, and all that they use, reach the modules below."""
    reader = _Reader(module)
    reader.found.entries = tuple(entries)
    try:
        reader.read(reader.found.entries)
    except Exception as error:  # noqa: BLE001 - what cannot be read is unknown, for whatever reason
        reader.found.unknown = f"its source cannot be read: {error}"
    return reader.found


_TORCHS = ("torch.nn.", "torch.fx.")


def methods_beside_forward(module: nn.Module) -> dict[str, bool]:
    """Return the methods of the user's classes besides ``forward``, and whether that uses them in some way.

    Raises:
        OSError: if there is no source.
    """
    classes = [c for c in type(module).__mro__ if c not in nn.Module.__mro__ and not c.__module__.startswith(_TORCHS)]
    bound = (staticmethod, classmethod)
    defined = {
        n for c in classes for n, v in vars(c).items() if plain_function(v) is not None and not isinstance(v, bound)
    }
    others = defined - {"__init__", "forward"}
    used = {name for _, name in _Reader(module).read(("forward",))} if others else set()
    return {name: name in used for name in sorted(others)}


def reaches_modules(module: nn.Module, method: str) -> bool:
    """Whether a method or property of a module uses the modules below it, or may."""
    found = reach(module, (method,))
    return bool(found.called or found.entered or found.kept or found.unknown)


def parsed_methods(module: nn.Module, methods: Iterable[str]) -> list[Source] | None:
    """Return the sources of methods and of all others that they use, None if these cannot be read."""
    try:
        used = _Reader(module).read(methods)
        return [source for owner, name in used if owner is not nn.Module for source in sources_of(vars(owner)[name])]
    except (OSError, TypeError, SyntaxError, AttributeError, ValueError):
        return None


def takes_required_only(module: nn.Module, positional: int, keywords: Iterable[str], *, starred: bool) -> bool:
    """Whether a call with these arguments leaves every optional parameter of ``forward`` at its default."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    optional = [p for p in parameters if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if asks_what_it_gets(type(module).forward, [p.name for p in parameters if p not in optional]):
        return False
    if not optional:
        return True
    required = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    takes_any = not required and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    names = {p.name for p in parameters if p not in optional}
    return not starred and (positional <= required or takes_any) and set(keywords) <= names


def asks_what_it_gets(forward: Any, names: Iterable[str], *, around: bool = True) -> bool:
    """Whether a forward asks what kind of thing a required argument is: ``x is None``, ``isinstance(x, list)``.

    Args:
        forward: the forward.
        names: the arguments.
        around: whether what is around it counts as well.
    """
    wanted = tuple(names)
    try:
        trees = [source.tree for source in sources_of(forward if around else plain_function(forward))]
    except (OSError, TypeError, SyntaxError, ValueError):
        return True
    looked = any(looks_into_rest(tree, wanted) for tree in trees[:-1])  # a wrapper may have no names for them
    return looked or any(_asks(node, wanted) for tree in trees for node in nodes_of(tree))


def _asks(node: ast.AST, names: tuple[str, ...]) -> bool:
    if isinstance(node, ast.Compare) and any(isinstance(o, (ast.Is, ast.IsNot)) for o in node.ops):
        return any(is_name(n, *names) for n in (node.left, *node.comparators))
    asked = isinstance(node, ast.Call) and is_name(node.func, "isinstance", "type")
    return asked and is_name(node.args[0], *names)  # type: ignore[attr-defined] # a Call


class _Reader:
    """Reads the methods of one module, one after the other."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.found = Reach()
        self.helpers: set[tuple[object, str, nn.Module]] = set()
        self.lost: set[nn.Module] = set()

    def read(self, entries: Iterable[str]) -> set[tuple[type, str]]:
        """Read methods and all that they use, and return what was read."""
        names = tuple(entries)
        if not self.module.__dict__.keys().isdisjoint(names):
            raise OSError("it was replaced on the instance")
        pending = [(owner, name) for name in names if (owner := defining_class(type(self.module), name))]
        seen: set[tuple[type, str]] = set(pending)
        while pending:
            owner, name = pending.pop()
            defined = vars(owner)[name]
            if owner is nn.Module or plain_function(defined) is None:
                continue
            readers = [self._reader(source, defined) for source in sources_of(defined)]
            named = {found for reader in readers for found in reader.named} - seen
            seen |= named
            pending += named
            for used in [name for reader in readers for name in reader.used]:
                after = used.removeprefix("super().")
                start = owner if used != after else None
                definer = defining_class(type(self.module), after, after=start)
                if definer is not None and (definer, after) not in seen:
                    seen.add((definer, after))
                    pending.append((definer, after))
        return seen

    def _reader(self, source: Source, defined: Any) -> MethodReader:
        if any(is_name(node, "eval", "exec") or isinstance(node, ast.Global) for node in nodes_of(source.tree)):
            raise OSError("it runs text, or writes a variable of its Python module")
        given = {} if isinstance(defined, staticmethod) else {source.own: self.module}
        reader = MethodReader(self, source, given)
        reader.read()
        return reader

    # -- what is found

    def call(self, module: nn.Module, call: ast.Call | None) -> None:
        """Note a call, with unknown arguments if there is no expression for it."""
        if module is self.module:
            return
        if call is not None:
            self.found.escaped.discard(module)
        starred = call is None or any(isinstance(a, ast.Starred) for a in call.args)
        starred = starred or any(k.arg is None for k in call.keywords)  # type: ignore[union-attr] # None is starred
        keywords = [k.arg or "" for k in call.keywords] if call else []
        plain = takes_required_only(module, len(call.args) if call else 0, keywords, starred=starred)
        self.found.called[module] = self.found.called.get(module, True) and plain

    def escape(self, module: nn.Module) -> None:
        """Note that a module is handed to code that is not read: it and everything below can be called or read."""
        if module is not self.module and module not in self.found.called:
            self.found.escaped.add(module)
        self.call(module, None)
        if module not in self.lost:
            self.lost.add(module)
            self.found.kept |= set(module.modules())

    def attribute(self, module: nn.Module, name: str) -> None:
        """Note that an attribute of a module below is read, without reading it: a property could do anything."""
        defined = inspect.getattr_static(type(module), name, None)
        value = {**module._buffers, **module._parameters, **module.__dict__}.get(name)
        tensor = name in module._parameters or isinstance(value, Tensor)
        if name == "forward":
            self.call(module, None)
        elif tensor or self.normalises(module):
            self.found.kept.add(module)
            self.found.read.add(module)
        elif defined is not None and not hasattr(nn.Module, name) and _is_code(defined):
            self.found.entered.setdefault(module, set()).add(name)

    def own(self, name: str, *, shape: bool) -> None:
        """Note that an attribute of the module itself is read."""
        (self.found.own_shapes if shape else self.found.own).add(name)

    def tap(self, module: nn.Module) -> None:
        """Note that a module is used by itself, as a part of a container."""
        self.found.read.add(module)

    def normalises(self, module: nn.Module) -> bool:
        """Whether a fold could take the module away."""
        row = operator_of(module)
        return row is not None and issubclass(row.view, AffineSource)


def _is_code(defined: Any) -> bool:
    return callable(defined) or isinstance(defined, (property, classmethod, functools.cached_property))
