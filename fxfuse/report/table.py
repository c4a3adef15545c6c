"""Tables as text, as wide as they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMN, LAST_COLUMN, LEAST = 44, 72, 24


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """Return a table whose last column takes what is left of the width; no word is broken, since words are names."""
    columns = list(zip(headers, *rows, strict=True))
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    widths = [max(COLUMN, word) for word in words[:-1]]
    needed = [max(len(column[0]) + 2, *map(len, column)) for column in columns[:-1]]  # tabulate pads a header
    taken = sum(2 + min(pair) for pair in zip(widths, needed, strict=True))
    last = max(words[-1], LAST_COLUMN if width is None else max(LEAST, width - taken))
    return tabulate(rows, headers=headers, maxcolwidths=[*widths, last], disable_numparse=True)


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts, in the plural if there are several."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
