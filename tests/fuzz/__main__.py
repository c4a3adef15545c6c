"""Long runs over random models: ``python -m tests.fuzz --examples 20000 --seed 1``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from tqdm import tqdm

from tests.fuzz.forms import check_forms
from tests.fuzz.properties import Broken, check
from tests.fuzz.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fuzz.recipes import Recipe

BATCH = 50  # a failure ends a batch, and the next one goes on


@dataclass
class Run:
    """What was asked for, and what was met and failed so far."""

    forms: int
    shrink: bool
    seen: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def batch(self, seed: int, count: int, progress: tqdm[Any]) -> None:
        """Check a few models; the first that fails is shrunk and printed, and ends the batch."""
        latest: list[tuple[Recipe, Exception]] = []

        @hypothesis.seed(seed)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate, *([Phase.shrink] if self.shrink else [])],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(recipe=RECIPES)
        def every(recipe: Recipe) -> None:
            if not latest:
                progress.update()
            try:
                found = self.checked(recipe)
            except Exception as error:
                latest[:] = [(recipe, error)]
                raise
            self.seen.update({} if latest else found)

        try:
            every()
        except Exception:
            if not latest:
                raise
            self.tell(*latest[0], seed)

    def checked(self, recipe: Recipe) -> Counter[str]:
        """Hold one model against all properties; the forms of some only, since an export costs half a second."""
        chosen = self.forms > 0 and zlib.crc32(repr(recipe.steps).encode()) % self.forms == 0
        return check(recipe) + (check_forms(recipe) if chosen else Counter())

    def tell(self, recipe: Recipe, error: Exception, seed: int) -> None:
        """Print a failure, with what builds the model again."""
        kind = error.kind if isinstance(error, Broken) else type(error).__name__
        self.failed[kind] += 1
        tqdm.write(f"\n== {kind} (seed {seed})\n{recipe!r}\n{error}", file=sys.stdout)
        sys.stdout.flush()


def parsed(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="how many models")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same models")
    parser.add_argument("--forms", type=int, default=20, help="one in so many goes through every form; 0 for none")
    parser.add_argument("--no-shrink", action="store_true", help="print failures as they were drawn")
    return parser.parse_args(None if arguments is None else list(arguments))


def main(arguments: Iterable[str] | None = None) -> int:
    """Check as many models as asked for; 1 if any broke a property."""
    asked = parsed(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # torch.export tells of every failure there
    started, run = time.monotonic(), Run(asked.forms, not asked.no_shrink)
    with tqdm(total=asked.examples, mininterval=5) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(asked.examples):
            if progress.n >= asked.examples:
                break
            run.batch(asked.seed * 1_000_000 + number, min(BATCH, asked.examples - progress.n), progress)
    for title, counted in (("met", run.seen), ("failed", run.failed)):
        lines = [f"{count:8} {key}" for key, count in counted.most_common()]
        sys.stdout.write("\n".join([f"\n{title}:", *lines, ""]))
    seconds = time.monotonic() - started
    sys.stdout.write(f"\n{progress.n} models, {run.failed.total()} failures, {seconds:.0f} s\n")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
