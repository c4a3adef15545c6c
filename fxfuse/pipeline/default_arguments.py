"""Which optional arguments of a model decide whether the folds hold, where its Python forward is kept.

A graph holds for the arguments that it was traced with.  The Python forward of a model of the user's class can be
called with others, and may take other branches then.  So the model is captured with other values as well; where the
same folds come out for every combination, the arguments do not matter to them.
"""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fxfuse.capture.capture import capture
from fxfuse.capture.forward_arguments import ANY_VALUE, asks_what_it_gets
from fxfuse.pipeline.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from fxfuse.capture.capture import Part
    from fxfuse.pipeline.options import Options

_MOST = 3  # arguments of which all combinations are tried


def decisive_arguments(attempt: Attempt, options: Options) -> Mapping[str, Any]:
    """Return the arguments, with their values, that a model of the user's class has to be called with."""
    root = attempt.captured.root
    if attempt.structure != "module" or root is None or not attempt.replaced.modules:
        return {}
    return {**_asked(root.module), **_decisive(attempt, root, options)}


def _asked(module: nn.Module) -> dict[str, Any]:
    """Return the required arguments of which the forward asks what they are: it was traced with tensors."""
    forward = type(module).forward
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return {name: Tensor for name in required if asks_what_it_gets(forward, [name])}


def _decisive(attempt: Attempt, root: Part, options: Options) -> Mapping[str, Any]:
    if not root.specialised:
        return {}
    names = list(root.specialised)
    wanted = _folds(attempt)
    if len(names) > _MOST or any(isinstance(root.specialised[n], (tuple, dict)) for n in names):
        return root.specialised
    for count in range(1, len(names) + 1):
        for changed in itertools.combinations(names, count):
            others = {n: _other(root.specialised[n]) if n in changed else root.specialised[n] for n in names}
            if _folds_with(attempt, root.module, others, options) != wanted:
                return root.specialised
    return {}


def _other(value: Any) -> Any:
    return not value if isinstance(value, bool) else ANY_VALUE


def _folds_with(attempt: Attempt, model: nn.Module, passed: Mapping[str, Any], options: Options) -> object:
    captured = capture(model, passed, hooks=options.hooks)
    return _folds(Attempt.of(captured, options, attempt.kept)) if captured.root is not None else None


def _folds(attempt: Attempt) -> set[tuple[str, tuple[str, ...]]]:
    return {(decision.path, decision.into) for decision in attempt.decisions if decision.folded}
