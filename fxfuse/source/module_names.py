"""Which modules the names and expressions of a method can stand for."""

from __future__ import annotations

import ast
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.modules.lookup import CONTAINERS
from fxfuse.source.syntax import is_name, is_text, nodes_of, plain_function, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEYED = frozenset("items named_children".split())
_PLAIN = frozenset("values children".split())


_GETATTR: Any = nn.Module.__getattr__


def is_unread(module: nn.Module, name: str) -> bool:
    """Whether an attribute is code that is not read: a method of some instance, or what a descriptor gives."""
    cls = type(module)
    held = module.__dict__.get(name)
    if isinstance(held, types.MethodType) and isinstance(held.__self__, nn.Module):
        return True
    defined = inspect.getattr_static(cls, name, None)
    if defined is None:
        return name not in module.__dict__ and getattr(cls, "__getattr__", None) is not _GETATTR
    own = not (type(defined).__module__ or "").startswith(("torch", "builtins"))
    return own and hasattr(type(defined), "__get__") and plain_function(defined) is None


def has_own_loop(module: nn.Module) -> bool:
    """Whether a class of the user's says what a loop over the module visits."""
    loops = (getattr(cls, "__iter__", None) for cls in CONTAINERS)
    return getattr(type(module), "__iter__", None) not in (None, *loops)


class ModuleNames:
    """The local names for modules in one method: ``conv = self.conv``, ``for i, block in enumerate(self.blocks)``.

    Attributes:
        bound: name -> the modules that it can stand for.
    """

    def __init__(self, tree: ast.AST, given: Mapping[str, nn.Module]) -> None:
        """Find all names besides those given; they can depend on each other, seldom deeper than three times."""
        self.bound: dict[str, dict[nn.Module, None]] = {name: {module: None} for name, module in given.items()}
        for _ in range(3):
            for node in _bindings(tree):
                if isinstance(node, (ast.For, ast.comprehension)):
                    self._bind_loop(node.target, node.iter)
                elif node.value is not None:
                    for target in targets_of(node):
                        self._bind(target, node.value)

    # -- names

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._add(target, self.resolve(value))
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._bind(one, other)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                self._add(one, self.elements(value))

    def _bind_loop(self, target: ast.expr, iterated: ast.expr) -> None:
        arguments = iterated.args if isinstance(iterated, ast.Call) else []
        if isinstance(target, ast.Tuple) and isinstance(iterated, ast.Call):
            if is_name(iterated.func, "zip"):
                for one, other in zip(target.elts, arguments, strict=False):
                    self._bind_loop(one, other)
                return
            if is_name(iterated.func, "enumerate") and arguments and len(target.elts) > 1:
                self._bind_loop(target.elts[1], arguments[0])
                return
            if isinstance(iterated.func, ast.Attribute) and iterated.func.attr in _KEYED and len(target.elts) > 1:
                self._add(target.elts[1], self.elements(iterated))
                return
        for name in [n for n in ast.walk(target) if isinstance(n, ast.Name)]:
            self._add(name, self.elements(iterated))

    def _add(self, target: ast.expr, modules: Iterator[nn.Module]) -> None:
        found = dict.fromkeys(modules)
        if isinstance(target, ast.Name) and found:
            self.bound.setdefault(target.id, {}).update(found)

    def can_bind(self, assignment: ast.Assign | ast.AnnAssign) -> bool:
        """Whether every target is a name, or names side by side, that this class can follow."""
        return all(
            isinstance(n, ast.Name)
            for t in targets_of(assignment)
            for n in (t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t])
        )

    @staticmethod
    def unpacks(assignment: ast.Assign | ast.AnnAssign) -> bool:
        """Whether names side by side get expressions side by side."""
        return all(isinstance(target, (ast.Tuple, ast.List)) for target in targets_of(assignment))

    # -- expressions

    def resolve(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules that an expression can be."""
        if isinstance(node, ast.Name):
            yield from self.bound.get(node.id, {})
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            for module in self.resolve(node.value):
                yield from self.inner(module, node)
        elif isinstance(node, ast.Call) and is_name(node.func, "getattr") and len(node.args) > 1:
            for module in self.resolve(node.args[0]):
                yield from self.fetched(module, node)
        else:
            for arm in _arms(node):
                yield from self.resolve(arm)

    def elements(self, node: ast.AST) -> Iterator[nn.Module]:
        """Yield the modules that a loop over an expression can visit."""
        if isinstance(node, (ast.Tuple, ast.List)):
            for element in node.elts:
                yield from self.resolve(element)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            yield from self.elements(node.value)
        elif isinstance(node, ast.Call):
            yield from self._elements_of_call(node)
        else:
            for module in self.resolve(node):
                yield from () if isinstance(module, nn.ModuleDict) else module.children()  # a loop visits its keys
            for module in self.resolve(node.value) if isinstance(node, ast.Attribute) else ():
                yield from self.held(module, node.attr)  # type: ignore[attr-defined] # an Attribute

    def _elements_of_call(self, node: ast.Call) -> Iterator[nn.Module]:
        if is_name(node.func, "enumerate", "reversed", "list", "tuple", "iter", "zip"):
            for argument in node.args:
                yield from self.elements(argument)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _KEYED | _PLAIN:
            for module in self.resolve(node.func.value):
                yield from module.children()

    @staticmethod
    def inner(module: nn.Module, node: ast.Attribute | ast.Subscript) -> Iterator[nn.Module]:
        """Yield the children that an attribute or element of a module can be."""
        if isinstance(node, ast.Attribute):
            value = module._modules[node.attr] if node.attr in module._modules else module.__dict__.get(node.attr)
            if isinstance(value, nn.Module):
                yield value
        elif isinstance(module, CONTAINERS) and not isinstance(node.slice, ast.Slice):
            children = list(module.children())
            index = node.slice.value if isinstance(node.slice, ast.Constant) else None
            known = isinstance(index, int) and index < len(children) and not isinstance(module, nn.ModuleDict)
            yield from [children[index]] if known else children  # type: ignore[index] # an int, as was seen

    @staticmethod
    def fetched(module: nn.Module, call: ast.Call) -> Iterator[nn.Module]:
        """Yield the children that ``getattr(module, name)`` can be: each, where the name is computed."""
        name = call.args[1]
        if not is_text(name):
            yield from module.children()
        elif name.value in module._modules:  # type: ignore[attr-defined] # a text constant
            child = module._modules[name.value]  # type: ignore[attr-defined] # a text constant
            if child is not None:
                yield child

    @staticmethod
    def held(module: nn.Module, name: str) -> Iterator[nn.Module]:
        """Yield the modules that a plain attribute holds: a list of layers, a way back to a parent."""
        yield from _modules_in(module.__dict__.get(name))


_BINDS = (ast.For, ast.comprehension, ast.Assign, ast.AnnAssign, ast.NamedExpr)


@functools.cache  # of trees that are remembered as well
def _bindings(tree: ast.AST) -> tuple[Any, ...]:
    return tuple(node for node in nodes_of(tree) if isinstance(node, _BINDS))


def _arms(node: ast.AST) -> list[ast.expr]:
    """Return the expressions of which one is the value of this one."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BoolOp):
        return node.values
    return [node.value] if isinstance(node, ast.NamedExpr) else []


def _modules_in(value: Any, depth: int = 3) -> Iterator[nn.Module]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    for item in inner if depth else ():
        if isinstance(item, nn.Module):
            yield item
        else:
            yield from _modules_in(item, depth - 1)
