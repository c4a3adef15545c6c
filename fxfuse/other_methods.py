"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method that the forward does not use (``features`` beside ``forward``) still
calls the same modules.  If it calls the convolution without the norm, the fold would change its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.adjacent import always_follows
from fxfuse.call_sites import Reach, reach, unreached_methods
from fxfuse.report import Reason, Refusal
from fxfuse.undo import folded_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from fxfuse.capture import Capture, Part
    from fxfuse.editor import Editor


def changed_elsewhere(captured: Capture, edits: Iterable[tuple[Part, Editor]]) -> dict[nn.Module, Refusal]:
    """Return the modules that must stay, since another method calls only a part of what was folded."""
    folds = [fold for fold in folded_modules(edits) if len(fold) > 1]
    result: dict[nn.Module, Refusal] = {}
    if not folds:
        return result
    paths = captured.paths
    for module in captured.model.modules():
        methods = _other_methods(module)
        inside = set(module.modules()) if methods else set()
        mine = [fold for fold in folds if fold <= inside] if methods else []
        for method in methods if mine else ():
            found = reach(module, (method,))
            for fold in mine:
                split = _split(found, fold)
                if split and not _joined(module, method, fold):
                    name = ".".join(filter(None, [paths[module] or type(module).__name__, method]))
                    alone = ", ".join(sorted(paths[m] for m in split))
                    refusal = Refusal(Reason.REACHED_INTO, value=alone, users=name)
                    result = {**dict.fromkeys(fold, refusal), **result}
    return result


def _other_methods(module: nn.Module) -> list[str]:
    """Return the methods that ``forward`` does not use."""
    try:
        methods = unreached_methods(module)
    except (OSError, TypeError, SyntaxError, AttributeError):
        return []  # without source nobody can say; the class was not written in a file
    # What initialises, loads or configures a model is not meant to be called on a fused one.
    return [method for method in methods if not method.startswith(_INITIALISES)]


def _split(found: Reach, fold: set[nn.Module]) -> set[nn.Module]:
    """Return the modules of a fold that a method uses by themselves, and not within a module that holds them all."""
    together = [called for called in found.called if fold <= set(called.modules())]
    alone = {m for called in found.called if called not in together for m in called.modules()}
    entered = {m for module in found.entered for m in module.modules()}
    return fold & (alone | entered | (set() if together else found.kept))


def _joined(module: nn.Module, method: str, fold: set[nn.Module]) -> bool:
    """Whether a method calls the two modules of a fold one after the other, always."""
    if len(fold) != 2:
        return False
    one, other = fold
    return always_follows(module, one, other, method) or always_follows(module, other, one, method)


_INITIALISES = (
    "init",
    "_init",
    "reset",
    "_reset",
    "load",
    "_load",
    "set_",
    "fuse",
    "reparam",
    "switch",
    "train",
    "extra_",
)
