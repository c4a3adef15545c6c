"""Whether a hook on a block may come to the layers inside, which are others after a fold; read from its code."""

from __future__ import annotations

import ast
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.call import is_hooked
from fxfuse.call_sites import parsed_methods
from fxfuse.decorated import wrappers_of
from fxfuse.hidden_ways import leads_nowhere
from fxfuse.method_reader import LISTING
from fxfuse.operator_table import operator_of
from fxfuse.proxies import Untraceable
from fxfuse.python_source import is_name, nodes_of, parents_of, parse, runs_text
from fxfuse.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_HARMLESS = frozenset("type id hash str repr print isinstance len".split())
_WAYS = LISTING | {"forward", "__call__"}
_DEPTH = 4  # of values in values


def looked_into(modules: Collection[nn.Module]) -> set[nn.Module]:
    """Return the modules, of all those of a model, of which a hook may use, read or switch what is inside."""
    hooks = {m: [*m._forward_hooks.values(), *m._forward_pre_hooks.values()] for m in modules if is_hooked(m)}
    return {m for m, own in hooks.items() if operator_of(m) is None and any(_looks(hook, m, modules) for hook in own)}


def kept_by_hooks(owners: Collection[nn.Module], paths: Mapping[nn.Module, str]) -> dict[nn.Module, Refusal]:
    """Return what is inside of modules that are looked into, which must stay as it is."""
    refusals = {m: Refusal(Reason.HOOKED, value=paths[m] or type(m).__name__) for m in owners}
    return {inner: refusals[owner] for owner in owners for inner in owner.modules()}


def require_blind_hooks(module: nn.Module, owners: Collection[nn.Module]) -> None:
    """Raise ``Untraceable`` for a module that is looked into: a graph of it would not see what a hook switches."""
    if module in owners:
        raise Untraceable("a hook of it may look inside")


def _looks(hook: Any, module: nn.Module, inside: Collection[nn.Module]) -> bool:
    given = 0
    while isinstance(hook, functools.partial):
        given += len(hook.args)
        if _leads([hook.args, hook.keywords], inside, frozenset(), _DEPTH):
            return True
        hook = hook.func
    hook = hook if hasattr(hook, "__code__") or isinstance(hook, nn.Module) else getattr(hook, "__call__", hook)  # noqa: B004
    function, owner = getattr(hook, "__func__", hook), getattr(hook, "__self__", None)
    if not inspect.isfunction(function) or wrappers_of(function):
        return True  # it is not written in Python, or there is something around it
    function = inspect.unwrap(function)
    if function.__module__.startswith("torch."):
        return False
    name = _parameter(function.__code__, given + (function is not hook and owner is not None))
    if not name or _opens(owner, _names_in(function.__code__), inside) or _captures(function, inside, _DEPTH):
        return True
    try:
        return not all(_only_asks(tree, name, module) for tree in _trees(function))
    except (OSError, TypeError, SyntaxError, ValueError):
        return True  # nobody can say


def _parameter(code: types.CodeType, given: int) -> str:
    """Return which parameter gets the module, ``*args`` if it comes first among these; empty if nobody can say."""
    if given < code.co_argcount:
        return code.co_varnames[given]
    rest = given == code.co_argcount and code.co_flags & inspect.CO_VARARGS
    return "*" + code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if rest else ""


def _trees(function: Any) -> list[ast.AST]:
    """Return the syntax tree of a function; of a lambda those of all that begin in its line."""
    if function.__name__ != "<lambda>":
        return [parse(function)[0]]
    lines, _ = inspect.findsource(function)
    found = [n for n in _lambdas("".join(lines)) if n.lineno == function.__code__.co_firstlineno]
    if not found:
        raise OSError("its source is another by now")
    return list(found)


@functools.lru_cache(maxsize=8)  # files
def _lambdas(text: str) -> list[ast.Lambda]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)]


# -- the module that is passed


def _only_asks(tree: ast.AST, name: str, module: nn.Module) -> bool:
    """Whether a hook only asks its module for settings, notes things on it, or uses it as a key."""
    if runs_text(tree):
        return False
    parents = parents_of(tree)
    used = [node for node in nodes_of(tree) if is_name(node, name.lstrip("*"))]
    if name.startswith("*"):
        return all(_is_another(node, parents[node]) for node in used)
    return all(_is_harmless(node, parents, module) for node in used)


def _is_another(rest: ast.AST, parent: ast.AST) -> bool:
    """Whether an expression is ``args[1]`` or the like, where the module is ``args[0]``."""
    number = parent.slice if isinstance(parent, ast.Subscript) and parent.value is rest else None
    return isinstance(number, ast.Constant) and isinstance(number.value, int) and number.value > 0


def _is_harmless(node: ast.AST, parents: dict[ast.AST, ast.AST], module: nn.Module) -> bool:
    parent = parents[node]
    if isinstance(parent, ast.Attribute):
        load = isinstance(parent.ctx, ast.Load)
        return _is_setting(module, parent.attr) if load else parent.attr not in _mentioned(module)
    if isinstance(parent, ast.Call):
        return parent.func is not node and is_name(parent.func, *_HARMLESS)
    if isinstance(parent, ast.Subscript):
        return parent.slice is node
    return isinstance(parent, (ast.Compare, ast.FormattedValue))


def _is_setting(module: nn.Module, name: str) -> bool:
    held = module.__dict__.get(name)
    return name == "__class__" or (name in module.__dict__ and not name.startswith("_") and leads_nowhere(held))


def _mentioned(module: nn.Module) -> set[str]:
    """Return the attributes that the forward of a module mentions, of whatever."""
    sources = parsed_methods(module, ["forward"])
    own = {n.attr for source in sources for n in nodes_of(source.tree) if isinstance(n, ast.Attribute)}
    return own | {*module._modules, *module._parameters, *module._buffers}


# -- what it knows besides


def _captures(function: Any, inside: Collection[nn.Module], depth: int) -> bool:
    """Whether a function knows modules of the model: from around it, as defaults, or as variables of its file."""
    names = _names_in(function.__code__)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    known = [function.__globals__[name] for name in names if name in function.__globals__]
    return _leads([cells, known, function.__defaults__, function.__kwdefaults__], inside, names, depth)


def _leads(value: Any, inside: Collection[nn.Module], names: Collection[str], depth: int) -> bool:
    """Whether a value is or holds a module of the model; of objects only attributes of these names count."""
    if isinstance(value, nn.Module):
        return any(inner in inside for inner in value.modules())
    if isinstance(value, (type, types.ModuleType)) or not depth:
        return False
    if inspect.isfunction(value):
        return not (value.__module__ or "").startswith("torch.") and _captures(value, inside, depth - 1)
    if isinstance(value, types.MethodType):
        return _opens(value.__self__, _names_in(value.__func__.__code__), inside)
    return any(_leads(inner, inside, names, depth - 1) for inner in _held(value, names))


def _opens(owner: Any, names: Collection[str], inside: Collection[nn.Module]) -> bool:
    """Whether a method of an object that mentions these names comes to a module of the model through it."""
    if isinstance(owner, nn.Module) and _leads(owner, inside, names, _DEPTH):
        return any(name in owner._modules or name in _WAYS for name in names)
    return any(_leads(inner, inside, names, _DEPTH) for inner in _held(owner, names))


def _held(value: Any, names: Collection[str]) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    else:
        attributes = getattr(value, "__dict__", {})
        yield from (attributes[name] for name in names if name in attributes)


@functools.cache
def _names_in(code: types.CodeType) -> frozenset[str]:
    """Return all names and texts in a function, and in those that it defines."""
    inner = [_names_in(value) for value in code.co_consts if isinstance(value, types.CodeType)]
    texts = [value for value in code.co_consts if isinstance(value, str)]
    return frozenset(code.co_names).union(texts, *inner)
