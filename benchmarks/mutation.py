"""Mutation testing of the core: what share of small faults in the code do the tests notice?

One process imports and collects everything and runs each test once, to learn which lines it reads. Then, for every
mutant of a random sample, it forks: the child exchanges one function's code and runs the tests of the mutated lines
until one fails. Files and tests stand in `pyproject.toml`, the results and what they mean in `docs/mutation.md`.

    python benchmarks/mutation.py                                   # the sample of the page
    python benchmarks/mutation.py --share 1 --files algebra/affine  # all mutants of one file
    python benchmarks/mutation.py --names survivors.txt tests/rules # some mutants again, with some tests
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import random
import resource
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import pytest
import torch
from mutants import Mutant, mutants
from mutmut.configuration import config
from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def options() -> argparse.Namespace:
    """Read the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("tests", nargs="*", help="instead of those in pyproject.toml")
    made.add_argument("--share", type=float, default=0.125, help="of the mutants of each file")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--files", default="", metavar="TEXT", help="only files with this in their path")
    made.add_argument("--names", type=Path, metavar="FILE", help="only mutants whose name stands in this file")
    made.add_argument("--seconds", type=float, default=8.0, help="of tests for one mutant; the tests are drawn")
    return made.parse_args()


def chosen(options: argparse.Namespace) -> tuple[list[Mutant], Counter[str]]:
    """Return the sample, and how many mutants each file has."""
    files = [str(path) for path in sorted(Path("fxfuse").rglob("*.py")) if config().should_mutate(path)]
    every = {file: mutants(Path(file), file) for file in files if options.files in file}
    sizes = Counter({file: len(found) for file, found in every.items()})
    if options.names:
        names = set(options.names.read_text().split())
        return [m for found in every.values() for m in found if m.name in names], sizes
    return [m for found in every.values() for m in found if _draw(options.seed, m) < options.share], sizes


def _draw(seed: int, mutant: Mutant) -> float:
    """Return a number in [0, 1) that a mutant keeps for as long as its function stays as it is."""
    return random.Random(f"{seed} {mutant.name}").random()  # noqa: S311 - no secret


class Mutating:
    """A plugin of pytest that runs each collected test once, and then some of them for each mutant.

    Attributes:
        results: mutant -> "killed" or "survived", or "no test" where no test reads its lines.
    """

    def __init__(self, sample: Sequence[Mutant], options: argparse.Namespace) -> None:
        self.sample, self.options = sample, options
        self.results: dict[Mutant, str] = {}
        self._failed = False
        self._seconds: dict[pytest.Item, float] = {}
        self._readers: dict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
        self._kills: Counter[tuple[str, pytest.Item]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether the test that runs has failed."""
        self._failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do everything, in place of pytest's loop over the tests."""
        self._observe(session.items)
        again = self._fork(None, session.items, sum(self._seconds.values()))
        if again is not None:
            pytest.exit(f"{session.items[again].nodeid} fails in a child, without any mutant", returncode=1)
        gc.freeze()  # a child shares the memory of its parent until it writes there
        for count, mutant in enumerate(self.sample, 1):
            items = self._items(mutant)
            killer = self._fork(mutant, items, self.options.seconds) if items else None
            self.results[mutant] = "no test" if not items else "survived" if killer is None else "killed"
            if killer is not None and killer < len(items):
                self._kills[mutant.function, items[killer]] += 1
            if killer is None:
                print(f"{count}/{len(self.sample)} {self.results[mutant]} {len(items)} tests: {mutant}", flush=True)
        return True

    def _observe(self, items: Sequence[pytest.Item]) -> None:
        watch = coverage.Coverage(data_file=None, config_file=False, include=sorted({m.file for m in self.sample}))
        contexts = {item.nodeid: item for item in items}
        for item in items:
            start = time.process_time()
            with watch.collect():
                watch.switch_context(item.nodeid)
                self._run(item)
            if self._failed:
                pytest.exit(f"{item.nodeid} fails without any mutant", returncode=1)
            self._seconds[item] = time.process_time() - start
        data = watch.get_data()
        for file in data.measured_files():
            name = Path(file).relative_to(Path.cwd()).as_posix()
            for line, readers in data.contexts_by_lineno(file).items():
                self._readers[name, line] += [contexts[reader] for reader in readers if reader]

    def _items(self, mutant: Mutant) -> list[pytest.Item]:
        """Return tests of the mutated lines: first those that killed mutants of the function, then many kinds."""
        known = dict.fromkeys(item for line in mutant.lines for item in self._readers[mutant.file, line])
        items, turns = list(known), Counter[str]()
        random.Random(mutant.name).shuffle(items)  # noqa: S311 - no secret
        order = {}
        for item in items:
            kind = item.nodeid.partition("[")[0]
            turns[kind] += 1  # one case of each test, then a second one
            order[item] = (-self._kills[mutant.function, item], turns[kind], self._seconds[item])
        items.sort(key=order.__getitem__)
        left, taken = self.options.seconds, []
        for item in items:
            if left > 0:
                left -= self._seconds[item]
                taken.append(item)
        return taken

    def _fork(self, mutant: Mutant | None, items: Sequence[pytest.Item], seconds: float) -> int | None:
        """Return which test fails in a child with the mutant; the number of tests if it ran out of time.

        Raises:
            RuntimeError: if the child could not exchange the code.
        """
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # tracebacks of mutants are no news
                limit = int(4 * seconds) + 10  # seconds of computing; a mutant may run for ever
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
                if mutant is not None:
                    mutant.put_in_place()
                os.write(write, b"started ")
                os.write(write, str(self._first_failure(items)).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as pipe:
            started, _, answer = pipe.read().partition(" ")
        if not started:
            raise RuntimeError(f"{mutant} cannot be put in place")
        return None if answer == "None" else int(answer or len(items))

    def _first_failure(self, items: Sequence[pytest.Item]) -> int | None:
        self._failed = False
        for number, item in enumerate(items):
            self._run(item)
            if self._failed:
                return number
        return None

    def _run(self, item: pytest.Item) -> None:
        with contextlib.redirect_stdout(None):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def table(results: dict[Mutant, str], sizes: Counter[str]) -> str:
    """Return the results of each file."""
    counts = Counter((mutant.file, result) for mutant, result in results.items())
    heads = ("killed", "survived", "no test")
    rows = [(f"`{file}`", size, *(counts[file, head] for head in heads)) for file, size in sizes.items()]
    sums = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    return tabulate([*rows, sums], ("file", "mutants", *heads), tablefmt="github")


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Return the bounds of the share of killed ones, by Wilson, at 95 %."""
    z, share = 1.96, killed / tried
    middle, width = share + z * z / (2 * tried), z * math.sqrt(share * (1 - share) / tried + (z / (2 * tried)) ** 2)
    return (middle - width) / (1 + z * z / tried), (middle + width) / (1 + z * z / tried)


def main() -> int:
    """Run everything and print it."""
    asked = options()
    torch.set_num_threads(1)
    sample, sizes = chosen(asked)
    print(f"{len(sample)} of {sizes.total()} mutants, seed {asked.seed}", flush=True)
    plugin = Mutating(sample, asked)
    tests: Iterable[str] = asked.tests or config().pytest_add_cli_args_test_selection
    code = pytest.main(["-s", "-p", "no:terminal", *config().pytest_add_cli_args, *tests], [plugin])
    if plugin.results:
        killed = sum(result == "killed" for result in plugin.results.values())
        low, high = interval(killed, len(plugin.results))
        print(table(plugin.results, sizes))
        print(f"{killed / len(plugin.results):.1%} killed, {low:.1%} to {high:.1%} at 95 % confidence")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
