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
    from fxfuse.graph.plan import Plan


def folded_modules(edits: Iterable[tuple[Part, Editor]], *, onwards: bool | None = None) -> list[set[nn.Module]]:
    """Return the modules of the user's that each fold changes, in the order in which they were done.

    Args:
        edits: what was done.
        onwards: only the folds into what follows, or only the others; None for all.
    """
    return [
        modules_of(plan, part, editor)
        for part, editor in edits
        for plan in editor.plans
        if onwards in (None, plan.onwards)
    ]


def modules_of(plan: Plan, part: Part, editor: Editor) -> set[nn.Module]:
    """Return the modules of the user's that a plan changes, before or after it is carried out."""
    nodes = [write.call.node for write in plan.writes] + [node for node, _ in plan.bypass] + [*plan.dropped]
    origins = [editor.origin[node] for node in nodes if node in editor.origin]
    return {o.module if o.module is not None else owner_at(part.module, o.owner) for o in origins}


@dataclass
class Replacements:
    """What takes the place of which module of the user's.

    Attributes:
        modules: a module of the user's -> the new one.
        conflicts: modules for which no single replacement serves every call; their folds must not be done.
    """

    modules: dict[nn.Module, nn.Module] = field(default_factory=dict)
    conflicts: set[nn.Module] = field(default_factory=set)
