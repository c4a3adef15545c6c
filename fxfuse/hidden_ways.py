"""Ways to the layers of a module that its source does not show as ``self.name``: with one of them it proves nothing."""

from __future__ import annotations

import ast
import inspect
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.known_texts import texts_of
from fxfuse.method_reader import LISTING
from fxfuse.modules import ATOMS
from fxfuse.python_source import binds, is_name, nodes_of, runs_text

if TYPE_CHECKING:
    from fxfuse.python_source import Source

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
