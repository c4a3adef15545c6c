"""Seconds to take new weights: `refold`, against fusing again, and against building, loading and fusing again.

The three take turns in one process; the ratios are medians of the ratios within each turn. Before, the result is
compared bit for bit with that of fusing again. Without names it runs over torchvision's classifiers.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import statistics
from dataclasses import dataclass

import common
import torch
from torch import nn

from fxfuse import FuseError, fx_fuse, refold
from fxfuse.cli import models
from fxfuse.cli.measure import ratio, time_in_turn

TURNS = 5


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: its name.
        refold: milliseconds of refold, median.
        fuse: milliseconds of fx_fuse.
        rebuild: milliseconds to build the model, load its weights and fuse it.
        to_fuse: refold / fuse.
        to_rebuild: refold / rebuild.
    """

    model: str
    refold: float
    fuse: float
    rebuild: float
    to_fuse: float
    to_rebuild: float


def measure(name: str) -> Row:
    """Compare, then time."""
    factory = models.find(name)
    first, second = (models.build(name, factory) for _ in range(2))
    models.randomize(first, seed=0)
    models.randomize(second, seed=1)
    with torch.no_grad():
        for norm in models.norms(second).values():  # signs decide folds
            for mine, theirs in zip(
                norm.parameters(), first.get_submodule(_path(second, norm)).parameters(), strict=True
            ):
                mine.copy_(mine.abs() * theirs.sign())
    fused, state = fx_fuse(first), second.state_dict()
    require_same(name, refold(fused, state), fx_fuse(second))

    def rebuilt() -> None:
        model = models.build(name, factory)
        model.load_state_dict(state)
        fx_fuse(model)

    variants = {"refold": lambda: refold(fused, state), "fuse": lambda: fx_fuse(second), "rebuild": rebuilt}
    times = time_in_turn(variants, TURNS)
    medians = {variant: statistics.median(found) for variant, found in times.items()}
    ratios = (ratio(times["refold"], times[variant]) for variant in ("fuse", "rebuild"))
    return Row(name, *medians.values(), *ratios)


def _path(model: nn.Module, module: nn.Module) -> str:
    return next(path for path, found in model.named_modules() if found is module)


def require_same(name: str, one: nn.Module, other: nn.Module) -> None:
    """Refuse results that differ in a bit."""
    first, second = one.state_dict(), other.state_dict()
    wrong = [key for key in first.keys() | second.keys() if not _same(first.get(key), second.get(key))]
    if wrong:
        raise FuseError(f"{name}: {len(wrong)} tensors differ, the first is {min(wrong)}")


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def main() -> None:
    """Print a row for each model, then the medians."""
    options = common.parse(common.parser(__doc__))
    names = options.models or common.classifiers()
    rows = []
    for name in names:
        rows.append(measure(name))
        print(rows[-1], flush=True)
    table = [
        (r.model, *(f"{x:.1f}" for x in (r.refold, r.fuse, r.rebuild)), f"{r.to_fuse:.2f}", f"{r.to_rebuild:.2f}")
        for r in rows
    ]
    common.show(table, ("model", "refold ms", "fx_fuse ms", "build, load, fuse ms", "to fx_fuse", "to all three"))
    to_fuse, to_rebuild = (
        statistics.median(values) for values in zip(*((r.to_fuse, r.to_rebuild) for r in rows), strict=True)
    )
    print(
        f"\n{len(rows)} models; median {to_fuse:.2f} of fusing again, {to_rebuild:.2f} of building, loading and fusing"
    )


if __name__ == "__main__":
    main()
