"""Where a command prints: as wide as the terminal is, with colours if it has them, and a bar while it works."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Words of tables, between two columns or at the end of a line.
COLOURS = {"stays": 33, "assumed": 33, "DIFFERS": 31}
BAR = "{l_bar}{bar}| {elapsed} elapsed, {remaining} left"


def width() -> int | None:
    """Return how many characters a line has, None where it is no terminal that is printed to."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def show(text: str) -> None:
    """Print; in colour on a terminal, unless NO_COLOR is set."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        words = "|".join(COLOURS)
        text = re.sub(rf"(?<=  )({words})(?=  |$)", _coloured, text, flags=re.MULTILINE)
    print(text)  # noqa: T201 - that is what a command does


def _coloured(found: re.Match[str]) -> str:
    return f"\033[{COLOURS[found[0]]}m{found[0]}\033[0m"


@contextlib.contextmanager
def steps(name: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal for work of a few steps, where tqdm is installed; yields what tells the next step."""
    try:
        tqdm: Any = importlib.import_module("tqdm").tqdm
    except ImportError:
        yield lambda _step: None
        return
    with tqdm(total=total, file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}", leave=False, disable=None) as bar:
        begun = False

        def step(what: str) -> None:
            nonlocal begun
            bar.update(int(begun))
            begun = True
            bar.set_description(f"{name}: {what}")

        yield step


def abandon_output() -> None:
    """Let Python not fail again where it flushes, after whoever read the output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
