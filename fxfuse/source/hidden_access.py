"""Ways to the layers of a module that its source does not show as ``self.name``: with one of them it proves nothing."""

from __future__ import annotations

import ast
import inspect
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.modules.lookup import ATOMS, CONTAINERS
from fxfuse.source.method_reader import LISTING
from fxfuse.source.syntax import binds, is_name, last_name, nodes_of, runs_text, targets_of
from fxfuse.source.texts import texts_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from fxfuse.source.syntax import Source

_ACCESS = ("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__call__")
_VALUES = (Tensor, torch.dtype, torch.device, torch.memory_format, torch.layout, type)
_ABSENT = object()
_DEPTH = 4  # of values in values


def hides_ways(owner: nn.Module, sources: list[Source]) -> bool:
    """Whether methods of a module may come to its layers, or change what it has, by other ways than ``self.name``."""
    own = [cls for cls in type(owner).__mro__ if cls not in nn.Module.__mro__]
    if any(name in vars(cls) for cls in own for name in _ACCESS):
        return True
    return any(_hides(owner, source) for source in sources)


def _hides(owner: nn.Module, source: Source) -> bool:
    tree, own = source.tree, source.own
    nodes = nodes_of(tree)
    if sum(binds(node, own) for node in nodes[1:]) > 1:  # more than as its parameter
        return True
    attributes = [n for n in nodes if isinstance(n, ast.Attribute) and is_name(n.value, own)]
    asked = [n for n in nodes if isinstance(n, ast.Call) and _only_asks(owner, tree, n)]
    harmless = [a for call in asked for a in call.args[:1] if is_name(a, own)]
    if len(attributes) + len(harmless) != sum(is_name(n, own) for n in nodes):
        return True
    return runs_text(tree) or not all(_is_plain(owner, name) for name in {n.attr for n in attributes})


def _only_asks(owner: nn.Module, tree: ast.AST, call: ast.Call) -> bool:
    """Whether a call asks something about its first argument, or for attributes of it of which the names are known."""
    if is_name(call.func, "getattr") and len(call.args) > 1:
        names = texts_of(tree, call.args[1])
        return names is not None and all(_is_plain(owner, name) for name in names)
    return is_name(call.func, "type", "hasattr", "isinstance")


def _is_plain(owner: nn.Module, name: str) -> bool:
    """Whether an attribute is a child, a value that leads to none, or a method of the user's, which is read as well."""
    if name in LISTING or (name.startswith("__") and name != "__class__"):  # the latter may be another name in a class
        return False
    defined = inspect.getattr_static(type(owner), name, _ABSENT)
    if any(name in registry for registry in (owner._modules, owner._parameters, owner._buffers)):
        return defined is _ABSENT
    if name in owner.__dict__ and not isinstance(defined, property):
        return leads_nowhere(owner.__dict__[name])
    if isinstance(defined, (types.FunctionType, staticmethod, classmethod, property)):
        return not hasattr(nn.Module, name) or name == "forward"
    return defined is _ABSENT or leads_nowhere(defined)


def leads_nowhere(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value is, and holds, no module and nothing of the user's that can be called."""
    if isinstance(value, _VALUES):
        return True
    if callable(value) or isinstance(value, nn.Module):
        held = getattr(value, "__self__", None)
        torchs = (getattr(value, "__module__", None) or "").startswith("torch") and not isinstance(value, nn.Module)
        return torchs and (held is None or isinstance(held, types.ModuleType))
    if type(value) in ATOMS:
        return True
    if not depth:
        return False
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else None
    inner = getattr(value, "__dict__", {}).values() if inner is None else inner
    return all(leads_nowhere(item, depth - 1) for item in inner)


_LISTS = LISTING - {"apply"}  # which gives the module itself


_MADE = tuple(cls.__name__ for cls in CONTAINERS)


_CALLED = ("forward", "__call__")


def calls_listed(tree: ast.AST, containers: Collection[str]) -> bool:
    """Whether a method calls what comes from a list of layers, or makes a container of it.

    Args:
        tree: the method.
        containers: the attributes that hold several layers.
    """
    names: set[str] = set()
    for _ in range(3):  # they can depend on each other, seldom deeper
        for node in nodes_of(tree):
            for target, value in _bindings(node):
                if _comes_from(value, names, containers):
                    names |= {inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return any(_calls(node, names, containers) for node in nodes_of(tree) if isinstance(node, ast.Call))


def _calls(call: ast.Call, names: set[str], containers: Collection[str]) -> bool:
    function: ast.expr = call.func
    if last_name(function) in _MADE:
        return any(_comes_from(argument, names, containers) for argument in call.args)
    if isinstance(function, ast.Attribute) and function.attr in _CALLED:
        function = function.value
    called = isinstance(function, (ast.Name, ast.Call, ast.Subscript))
    return called and _comes_from(function, names, containers)


def _comes_from(value: ast.AST, names: set[str], containers: Collection[str]) -> bool:
    """Whether an expression mentions a list of layers, or a name that comes from one."""
    inner = list(ast.walk(value))
    listed = any(isinstance(node, ast.Attribute) and (node.attr in _LISTS or node.attr in containers) for node in inner)
    return listed or any(is_name(node, *names) for node in inner)


def _bindings(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """Return the targets that a statement or loop sets, each with what it gets."""
    if isinstance(node, (ast.For, ast.comprehension)):
        return [(node.target, node.iter)]
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        return [(target, node.value) for target in targets_of(node)]
    return []
