"""What hooks forbid: tracing does not run them, and a hook can reach the layers inside of its module."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from fxfuse.capture.known_objects import objects_in, reached_from, values_of
from fxfuse.capture.members import Members, forwards_of
from fxfuse.capture.untraced_code import Code
from fxfuse.graph.registry import operator_of
from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ATOMS, HOOKS, REGISTRIES, is_hooked
from fxfuse.modules.origin import home_of, is_torchs, is_users
from fxfuse.report.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Hooks = Literal["keep", "observe"]


def has_keeping_hooks(module: nn.Module) -> bool:
    """Whether a hook keeps what is in a module: not one with which ``torch.export`` checks the inputs of a program."""
    if not is_hooked(module):
        return False
    hooks = [hook for name in HOOKS for hook in module.__dict__[name].values()]
    return not hooks or not all(home_of(hook).startswith("torch.export.") for hook in hooks)  # none: hooks of all


def kept_by_hooks(paths: Mapping[nn.Module, str]) -> dict[nn.Module, Refusal]:
    """Return the modules that hooks may come to: all in a module with hooks, and in those that a hook knows."""
    found: dict[nn.Module, Refusal] = {}
    for module in [module for module in paths if has_keeping_hooks(module)]:
        refusal = Refusal(Reason.HOOKED, value=paths[module] or type(module).__name__)
        known = [*_known_modules(module, paths), *([module] if operator_of(module) is None else [])]
        for inner in {inner for outer in known for inner in outer.modules()}:
            found.setdefault(inner, refusal)
    return found


def changed_by_hooks(paths: Mapping[nn.Module, str]) -> set[nn.Module]:
    """Return the modules of which a forward may read what a hook has set: no graph holds for the next call."""
    hooks = [hook for module in paths for hook in _hooks_of(module)]
    if not hooks:
        return set()
    functions, known = reached_from(hooks)
    objects = {id(held) for held in known}
    told = [mentions(function.__code__) for function in functions]
    names = {name for found in told for name in found.stored | found.own_stored}
    read = {name for found in told for name in found.names}
    for module in paths:
        for name, value in module.__dict__.items():
            if name not in REGISTRIES and type(value) not in ATOMS:
                shared = name in read or any(id(held) in objects for held in objects_in(value))
                names |= {name} if shared and not isinstance(value, nn.Module) else set()
    members = Members(paths)
    codes = {cls: Code(members, forwards_of(cls)) for cls in {type(module) for module in paths if is_users(module)}}
    reading = {cls for cls, code in codes.items() if names & code.names or _knows(code, objects)}
    return {module for module in paths if type(module) in reading}


def _knows(code: Code, objects: set[int]) -> bool:
    """Whether there is an object that can be changed, one of some numbers, among what some functions know."""
    fixed = (type, ModuleType, FunctionType, nn.Module)
    _, known = reached_from(value for function in code.functions for value in values_of(function))
    return any(id(value) in objects for value in known if not isinstance(value, fixed))


def _known_modules(hooked: nn.Module, paths: Mapping[nn.Module, str]) -> Iterator[nn.Module]:
    """Yield the modules that the hooks of a module come to without being given them."""
    for hook in _hooks_of(hooked):
        _, known = reached_from([hook])
        yield from (value for value in known if isinstance(value, nn.Module) and value in paths and value is not hooked)
        tensors = {id(value) for value in known if isinstance(value, Tensor)}
        for module in paths if tensors else ():
            if not tensors.isdisjoint(map(id, (*module._parameters.values(), *module._buffers.values()))):
                yield module


def _hooks_of(module: nn.Module) -> list[Any]:
    """Return the hooks of a module that run in a forward pass, but for torch's own."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return [hook for hook in hooks if not is_torchs(hook)]
