"""Modules of the argument that a result still comes to: something in an attribute holds them that cannot be copied."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any

from fxfuse.capture.known_objects import objects_in
from fxfuse.modules.lookup import REGISTRIES, contents_of, is_module, paths_below
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.copies import HOLD_NOTHING, copies_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import nn


def held_originals(members: Collection[nn.Module], result: Any) -> dict[nn.Module, str]:
    """Return the modules of a model that its copy still comes to, each with the path of the attribute that holds it.

    Args:
        members: the modules of the model.
        result: the copy.
    """
    own = paths_below(result)
    found: dict[nn.Module, str] = {}
    for module, path in own.items():
        for name, value in module.__dict__.items():
            if name not in REGISTRIES and type(value) not in HOLD_NOTHING:
                held = [inner for inner in _modules_in(value) if inner in members and inner not in own]
                found.update((inner, f"{path}.{name}".lstrip(".")) for inner in held)
    return found


def frozen_by_objects(model: nn.Module) -> dict[nn.Module, Refusal]:
    """Return the modules that code of the result may call as they are in the argument: a fold would not reach it."""
    found: dict[nn.Module, Refusal] = {}
    for held, path in held_originals(paths_below(model), copies_of(model, {})[model]).items():
        refusal = Refusal(Reason.BOUND, value=path)
        found |= dict.fromkeys(paths_below(held), refusal)
    return found


def _modules_in(value: Any) -> Iterator[nn.Module]:
    """Yield the modules in an object, also those that functions in it know."""
    seen, pending = set[int](), [value]
    while pending:
        for held in objects_in(pending.pop(), seen):
            if is_module(held):
                yield held
            elif isinstance(held, FunctionType):
                pending += [*map(contents_of, held.__closure__ or ()), *(held.__defaults__ or ())]
                pending += [*(held.__kwdefaults__ or {}).values(), *held.__dict__.values()]
            else:  # functools.lru_cache, say
                pending.append(inspect.getattr_static(held, "__wrapped__", None))
