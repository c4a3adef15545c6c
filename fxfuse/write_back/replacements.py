"""Which module takes the place of which, and which modules each fold touches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fxfuse.modules.lookup import owner_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from fxfuse.capture.capture import Part
    from fxfuse.edit.editor import Editor


def folded_modules(edits: Iterable[tuple[Part, Editor]], *, downstream: bool | None = None) -> list[set[nn.Module]]:
    """Return the modules of the user's that each fold changes, in the order in which they were done.

    Args:
        edits: what was done.
        downstream: True for the folds into later layers alone, False for the others, None for all.
    """
    found: list[set[nn.Module]] = []
    for part, editor in edits:
        for plan in (plan for plan in editor.plans if downstream in (None, plan.downstream)):
            origins = [editor.origin[node] for node in plan.nodes if node in editor.origin]
            found.append({o.module if o.module is not None else owner_at(part.module, o.owner) for o in origins})
    return found


@dataclass
class Replacements:
    """What takes the place of which module of the user's.

    Attributes:
        modules: a module of the user's -> the new one.
        conflicts: modules for which no single replacement serves every call; their folds must not be done.
    """

    modules: dict[nn.Module, nn.Module] = field(default_factory=dict)
    conflicts: set[nn.Module] = field(default_factory=set)
