"""One method of the user's, read for what it does with the modules below its own."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from fxfuse.python_source import is_name, is_super, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LISTING = frozenset("children named_children modules named_modules get_submodule apply _modules".split())
_HARMLESS_CALLS = frozenset("isinstance hasattr type super id len repr".split())


class Notes(Protocol):
    """Who wants to know what is found."""

    module: nn.Module

    def call(self, module: nn.Module, call: ast.Call | None) -> None:
        """Note a call, with unknown arguments if there is no expression for it."""

    def escape(self, module: nn.Module) -> None:
        """Note that a module is handed to code that is not read."""

    def attribute(self, module: nn.Module, name: str) -> None:
        """Note that an attribute of a module below is read."""


class MethodReader:
    """The source of one method."""

    def __init__(self, notes: Notes, tree: ast.AST, own: str) -> None:
        self.notes = notes
        self.tree = tree
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.names: dict[str, dict[nn.Module, None]] = {own: {notes.module: None}}
        self.used: set[str] = set()

    def read(self) -> set[str]:
        """Note everything, and return the names of the other methods that are used."""
        for _ in range(3):  # names for modules can depend on each other, seldom deeper
            self._bind_names()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id in self.names and isinstance(node.ctx, ast.Load):
                for module in list(self.names[node.id]):
                    self._follow(node, module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and is_super(node.value):
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
                    self.names.setdefault(name, {}).update(dict.fromkeys(modules))

    def _looped_over(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules of which a loop visits the children: ``self.blocks``, ``zip(self.a, self.b.values())``."""
        found = list(self._resolve(node))
        plain = isinstance(node, ast.Attribute) and node.attr not in (*LISTING, "items", "values")
        if found or plain:
            yield from found
            return
        for child in ast.iter_child_nodes(node):
            yield from self._looped_over(child)

    def _resolve(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules that an expression can be: a name, an attribute, an element of a container."""
        if isinstance(node, ast.Name):
            yield from self.names.get(node.id, {})
        elif isinstance(node, ast.Attribute):
            for module in self._resolve(node.value):
                yield from _modules_in(_child(module, node.attr))
        elif isinstance(node, ast.Subscript):
            for module in self._resolve(node.value):
                yield from (c for c in (module.children() if isinstance(module, CONTAINERS) else ()))

    def _follow(self, node: ast.expr, module: nn.Module) -> None:
        """Follow the expression that starts with a module as far as it leads to modules, and note its use."""
        parent = self.parents.get(node)
        if isinstance(parent, (ast.Attribute, ast.Subscript)) and self._inner(node, module, parent):
            for child in self._inner(node, module, parent):
                self._follow(parent, child)
        elif isinstance(parent, ast.Attribute):
            self._leave(module, parent)
        elif isinstance(parent, ast.Call) and parent.func is node:
            self.notes.call(module, parent)
        elif isinstance(parent, ast.Call):
            self._passed(node, module, parent)
        elif not self._names_it(node, parent):
            self.notes.escape(module)

    @staticmethod
    def _inner(node: ast.expr, module: nn.Module, parent: ast.Attribute | ast.Subscript) -> list[nn.Module]:
        """Return the modules that an attribute or element of a module can be."""
        if isinstance(parent, ast.Attribute):
            return list(_modules_in(_child(module, parent.attr)))
        return list(module.children()) if parent.value is node and isinstance(module, CONTAINERS) else []

    def _passed(self, node: ast.expr, module: nn.Module, call: ast.Call) -> None:
        """Note that a module is passed to a function."""
        if is_name(call.func, "getattr") and is_text(call.args[1]):
            self.notes.attribute(module, call.args[1].value)  # type: ignore[attr-defined] # a text constant
        elif not is_name(call.func, *_HARMLESS_CALLS) and not self._names_it(node, call):
            self.notes.escape(module)

    def _names_it(self, node: ast.expr, parent: ast.AST | None) -> bool:
        """Whether the module only gets a local name here, or is compared: both are followed by themselves."""
        while isinstance(parent, (ast.Call, ast.Tuple, ast.List)) and not isinstance(parent, ast.Starred):
            wrapped = isinstance(parent, ast.Call) and not is_name(parent.func, "enumerate", "zip", "reversed", "list")
            if wrapped or not isinstance(parent, ast.Call):
                return False
            node, parent = parent, self.parents.get(parent)
        loop = isinstance(parent, (ast.For, ast.comprehension)) and parent.iter is node
        assigned = isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and parent.value is node
        return loop or assigned or isinstance(parent, (ast.Compare, ast.BoolOp, ast.If, ast.IfExp, ast.UnaryOp))

    def _leave(self, module: nn.Module, attribute: ast.Attribute) -> None:
        """Note an attribute that is not a module."""
        if module is not self.notes.module:
            parent = self.parents.get(attribute)
            looped = attribute.attr in ("items", "values", "children", "named_children") and isinstance(
                parent, ast.Call
            )
            if not (looped and self._names_it(parent, self.parents.get(parent))):  # type: ignore[arg-type] # a Call
                self.notes.attribute(module, attribute.attr)
        elif attribute.attr in LISTING:
            self.notes.escape(module)
        else:
            self.used.add(attribute.attr)


def _values(target: ast.expr, iterated: ast.expr) -> list[ast.expr]:
    """Return the loop variables without the counter of ``enumerate`` or the key of ``items``."""
    if not (isinstance(target, ast.Tuple) and isinstance(iterated, ast.Call)):
        return [target]
    keyed = isinstance(iterated.func, ast.Attribute) and iterated.func.attr in (
        "items",
        "named_children",
        "named_modules",
    )
    return target.elts[1:] if keyed or is_name(iterated.func, "enumerate") else [target]


def _child(module: nn.Module, name: str) -> Any:
    """Return a child, or a plain attribute that may hold modules; never run a property."""
    return module._modules[name] if name in module._modules else module.__dict__.get(name)


def _modules_in(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (v for v in value if isinstance(v, nn.Module))
    elif isinstance(value, dict):
        yield from (v for v in value.values() if isinstance(v, nn.Module))
