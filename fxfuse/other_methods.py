"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method that the forward does not use (``features`` beside ``forward``) still
calls the same modules.  If it calls the convolution without the norm, the fold would change its result.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from fxfuse.call_sites import reach, unreached_methods
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
            called = _called_in(module, method)
            for fold in mine:
                split = fold & called
                if split and split != fold:
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
    return [method for method in methods if inspect.isfunction(inspect.getattr_static(type(module), method))]


def _called_in(module: nn.Module, method: str) -> set[nn.Module]:
    """Return all modules that the calls in a method run."""
    found = reach(module, (method,))
    # A module that is only handed on (to an initialisation, say) is not counted as called.
    return {inner for called in set(found.called) - found.escaped for inner in called.modules()}
