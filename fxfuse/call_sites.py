"""How Python code that could not be traced reaches the modules below it, read from its source.

A fold inside of a module is only proven if the code around it calls that module as a whole.  So the source of an
untraceable forward, and of every method that it uses, is searched for all the ways in which it reaches children:
calls, with what arguments; loops over containers; attributes of children; other methods of theirs.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.operator_table import operator_of
from fxfuse.operators.roles import AffineSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LISTING = frozenset("children named_children modules named_modules get_submodule apply _modules".split())
_HARMLESS_CALLS = frozenset("isinstance hasattr type super id len repr".split())
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Reach:
    """What untraced code does with the modules below it.

    Attributes:
        called: module -> whether every call that was found passes its required arguments only.
        entered: module -> names of its methods, other than forward, that are called.
        escaped: modules that are handed to code that is not read, and are among ``called`` for that alone.
        kept: modules of which an attribute or a tensor is read, and which must stay what they are.
        unknown: why the code could not be read; empty if it was.
    """

    called: dict[nn.Module, bool] = field(default_factory=dict)
    entered: dict[nn.Module, set[str]] = field(default_factory=dict)
    escaped: set[nn.Module] = field(default_factory=set)
    kept: set[nn.Module] = field(default_factory=set)
    unknown: str = ""


def reach(module: nn.Module, entries: Iterable[str] = ("forward",)) -> Reach:
    """Return how the methods ``entries`` of a module, and all that they use, reach the modules below."""
    reader = _Reader(module)
    try:
        reader.read(entries)
    except (OSError, TypeError, SyntaxError, AttributeError) as error:
        reader.found.unknown = f"its source cannot be read: {error}"
    return reader.found


def unreached_methods(module: nn.Module) -> list[str]:
    """Return the methods of the user's classes that ``forward`` does not use, directly or through others.

    Raises:
        OSError: if there is no source.
    """
    reader = _Reader(module)
    used = {name for _, name in reader.read(("forward",))}
    classes = [c for c in type(module).__mro__ if c not in nn.Module.__mro__ and not c.__module__.startswith("torch.nn.")]
    defined = {name for c in classes for name, value in vars(c).items() if _function(value) is not None}
    return sorted(defined - used - {"__init__"})


def parsed_methods(module: nn.Module) -> list[tuple[ast.AST, str]]:
    """Return the syntax trees of ``forward`` and all methods that it uses, with the name of their first parameter.

    Raises:
        OSError: if there is no source.
    """
    used = _Reader(module).read(("forward",))
    functions = [_function(vars(owner)[name]) for owner, name in used if owner is not nn.Module]
    return [_parse(function) for function in functions if function is not None]


def mentions(cls: type[nn.Module], method: str) -> set[str]:
    """Return the names of all attributes of ``self`` that a method mentions, in any way.

    Raises:
        OSError: if there is no source.
    """
    tree, own = _parse(inspect.unwrap(getattr(cls, method)))
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is_name(n.value, own)}


def takes_required_only(module: nn.Module, positional: int, keywords: Iterable[str], *, starred: bool) -> bool:
    """Whether a call with these arguments leaves every optional parameter of ``forward`` at its default."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    optional = [p for p in parameters if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not optional:
        return True
    required = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    takes_any = not required and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    names = {p.name for p in optional}
    return not starred and (positional <= required or takes_any) and not names & set(keywords)


class _Reader:
    """Reads the methods of one module, one after the other."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.found = Reach()

    def read(self, entries: Iterable[str]) -> set[tuple[type, str]]:
        """Read methods and all that they use, and return what was read."""
        pending = [(owner, name) for name in entries if (owner := _defining(type(self.module), name))]
        seen: set[tuple[type, str]] = set(pending)
        while pending:
            owner, name = pending.pop()
            function = _function(vars(owner)[name])
            if function is None or owner is nn.Module:
                continue
            tree, own = _parse(function)
            for used in _Method(self, tree, own).read():
                after = used.removeprefix("super().")
                start = owner if used != after else None
                definer = _defining(type(self.module), after, after=start)
                if definer is not None and (definer, after) not in seen:
                    seen.add((definer, after))
                    pending.append((definer, after))
        return seen

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
        """Note that a module is handed to code that is not read: it can be called, and a container opened."""
        opened = module.children() if isinstance(module, _CONTAINERS) or module is self.module else ()
        for reached in (module, *opened):
            if reached not in self.found.called:
                self.found.escaped.add(reached)
            self.call(reached, None)

    def attribute(self, module: nn.Module, name: str) -> None:
        """Note that an attribute of a module below is read."""
        value = getattr(module, name, None)
        defined = inspect.getattr_static(type(module), name, None)
        if name in _LISTING or (isinstance(module, _CONTAINERS) and name in ("items", "values", "keys")):
            self.escape(module)
        elif name == "forward":
            self.call(module, None)
        elif _function(defined) is not None and not hasattr(nn.Module, name):
            self.found.entered.setdefault(module, set()).add(name)
        elif isinstance(value, Tensor) or value is None or _is_affine(module):
            self.found.kept.add(module)


def _is_affine(module: nn.Module) -> bool:
    row = operator_of(module)
    return row is not None and issubclass(row.view, AffineSource)


class _Method:
    """The source of one method."""

    def __init__(self, reader: _Reader, tree: ast.AST, own: str) -> None:
        self.reader = reader
        self.tree = tree
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.names: dict[str, list[nn.Module]] = {own: [reader.module]}
        self.used: set[str] = set()

    def read(self) -> set[str]:
        """Note everything, and return the names of the other methods that are used."""
        for _ in range(3):  # names for modules can depend on each other, seldom deeper
            self._bind_names()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id in self.names and isinstance(node.ctx, ast.Load):
                for module in self.names[node.id]:
                    self._follow(node, module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and _is_super(node.value):
                self.used.add("super()." + node.attr)
        return self.used

    def _bind_names(self) -> None:
        """Find local names for modules: ``conv = self.conv``, ``for i, block in enumerate(self.blocks)``."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                modules = list(self._resolve(node.value))
            elif isinstance(node, (ast.For, ast.comprehension)):
                targets = _values(node.target, node.iter)
                modules = [child for m in self._looped_over(node.iter) for child in m.children()]
            else:
                continue
            for name in [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]:
                if modules:
                    known = self.names.setdefault(name, [])
                    known += [m for m in modules if all(m is not k for k in known)]

    def _looped_over(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules of which a loop visits the children: ``self.blocks``, ``zip(self.a, self.b.values())``."""
        found = list(self._resolve(node))
        plain = isinstance(node, ast.Attribute) and node.attr not in (*_LISTING, "items", "values")
        if found or plain:
            yield from found
            return
        for child in ast.iter_child_nodes(node):
            yield from self._looped_over(child)

    def _resolve(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules that an expression can be: a name, an attribute, an element of a container."""
        if isinstance(node, ast.Name):
            yield from self.names.get(node.id, [])
        elif isinstance(node, ast.Attribute):
            for module in self._resolve(node.value):
                yield from _modules_in(_child(module, node.attr))
        elif isinstance(node, ast.Subscript):
            for module in self._resolve(node.value):
                yield from (c for c in (module.children() if isinstance(module, _CONTAINERS) else ()))

    def _follow(self, node: ast.expr, module: nn.Module) -> None:
        """Follow the expression that starts with a module as far as it leads to modules, and note its use."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.Attribute):
            inner = list(_modules_in(_child(module, parent.attr)))
            for child in inner:
                self._follow(parent, child)
            if not inner:
                self._leave(module, parent)
        elif isinstance(parent, ast.Subscript) and parent.value is node and isinstance(module, _CONTAINERS):
            for child in module.children():
                self._follow(parent, child)
        elif isinstance(parent, ast.Call) and parent.func is node:
            self.reader.call(module, parent)
        elif isinstance(parent, ast.Call) and _is_name(parent.func, "getattr") and _is_text(parent.args[1]):
            self.reader.attribute(module, parent.args[1].value)  # type: ignore[attr-defined] # a text constant
        elif isinstance(parent, ast.Call) and _is_name(parent.func, *_HARMLESS_CALLS):
            return
        elif not self._names_it(node, parent):
            self.reader.escape(module)

    def _names_it(self, node: ast.expr, parent: ast.AST | None) -> bool:
        """Whether the module only gets a local name here, or is compared: both are followed by themselves."""
        while isinstance(parent, (ast.Call, ast.Tuple, ast.List)) and not isinstance(parent, ast.Starred):
            wrapped = isinstance(parent, ast.Call) and not _is_name(parent.func, "enumerate", "zip", "reversed", "list")
            if wrapped or not isinstance(parent, ast.Call):
                return False
            node, parent = parent, self.parents.get(parent)
        loop = isinstance(parent, (ast.For, ast.comprehension)) and parent.iter is node
        assigned = isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and parent.value is node
        return loop or assigned or isinstance(parent, (ast.Compare, ast.BoolOp, ast.If, ast.IfExp, ast.UnaryOp))

    def _leave(self, module: nn.Module, attribute: ast.Attribute) -> None:
        """Note an attribute that is not a module."""
        if module is not self.reader.module:
            parent = self.parents.get(attribute)
            looped = attribute.attr in ("items", "values", "children", "named_children") and isinstance(parent, ast.Call)
            if not (looped and self._names_it(parent, self.parents.get(parent))):  # type: ignore[arg-type] # a Call
                self.reader.attribute(module, attribute.attr)
        elif attribute.attr in _LISTING:
            self.reader.escape(module)
        else:
            self.used.add(attribute.attr)


def _values(target: ast.expr, iterated: ast.expr) -> list[ast.expr]:
    """Return the loop variables without the counter of ``enumerate`` or the key of ``items``."""
    if not (isinstance(target, ast.Tuple) and isinstance(iterated, ast.Call)):
        return [target]
    keyed = isinstance(iterated.func, ast.Attribute) and iterated.func.attr in ("items", "named_children", "named_modules")
    return target.elts[1:] if keyed or _is_name(iterated.func, "enumerate") else [target]


def _child(module: nn.Module, name: str) -> Any:  # noqa: ANN401 - attributes are of any type
    """Return a child, or a plain attribute that may hold modules; never run a property."""
    return module._modules[name] if name in module._modules else module.__dict__.get(name)


def _modules_in(value: Any) -> Iterator[nn.Module]:  # noqa: ANN401 - attributes are of any type
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (v for v in value if isinstance(v, nn.Module))
    elif isinstance(value, dict):
        yield from (v for v in value.values() if isinstance(v, nn.Module))


def _defining(cls: type, name: str, *, after: type | None = None) -> type | None:
    """Return the class in the method resolution order that defines a name, optionally only after another class."""
    order = cls.__mro__
    order = order[order.index(after) + 1 :] if after is not None else order
    return next((c for c in order if name in vars(c)), None)


def _function(defined: Any) -> Any:  # noqa: ANN401 - descriptors are of any type
    """Return the plain function behind a method, property, class method or decorated function, or None."""
    if isinstance(defined, property):
        defined = defined.fget
    defined = inspect.unwrap(getattr(defined, "__func__", defined)) if defined is not None else None
    return defined if inspect.isfunction(defined) else None


def _parse(function: Any) -> tuple[ast.AST, str]:  # noqa: ANN401 - a function
    """Return the syntax tree of a function and the name of its first parameter."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise OSError("not a function definition")
    parameters = [*tree.args.posonlyargs, *tree.args.args]
    return tree, parameters[0].arg if parameters else ""


def _is_name(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_super(node: ast.Call) -> bool:
    return _is_name(node.func, "super")
