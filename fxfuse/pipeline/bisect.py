"""Which folds to undo where a fused model gives another result than the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.report.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn


def culprits(
    folds: Sequence[set[nn.Module]], gap_without: Callable[[Mapping[nn.Module, Refusal]], float | None], gap: float
) -> dict[nn.Module, Refusal]:
    """Return the modules to keep, so that the rest of the folds gives what the model gives.

    Args:
        folds: the modules of each fold.
        gap_without: the difference that is left if some modules are not folded, None for mere rounding.
        gap: the difference with all folds.
    """
    refusal = Refusal(Reason.DIFFERS, detail=f"{gap:.1e}")
    guilty: dict[nn.Module, Refusal] = {}
    low = 0
    while low < len(folds):
        everything = dict.fromkeys(set().union(*folds[low:]), refusal)
        if gap_without({**guilty, **everything}) is not None:
            # Undoing all other folds does not help either: a fold that looked right is at fault too.
            return dict.fromkeys(set().union(*folds), refusal)
        bad = _first_bad(folds, low, guilty, refusal, gap_without)
        if bad is None:
            return guilty
        guilty |= dict.fromkeys(folds[bad], refusal)
        low = bad + 1
    return guilty


def _first_bad(
    folds: Sequence[set[nn.Module]],
    low: int,
    guilty: Mapping[nn.Module, Refusal],
    refusal: Refusal,
    gap_without: Callable[[Mapping[nn.Module, Refusal]], float | None],
) -> int | None:
    """Return the first fold that makes a difference, by halving; None if none of them does."""
    high = len(folds)
    if gap_without(guilty) is None:
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        rest = dict.fromkeys(set().union(*folds[middle:]) - set().union(*folds[:middle]), refusal)
        if gap_without({**guilty, **rest}) is None:
            low = middle
        else:
            high = middle
    return low
