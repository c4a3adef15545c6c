"""Tables as text, as wide as they may be."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMN, LAST_COLUMN, LEAST = 44, 72, 24
INDENT = "    "
BOX = "max-height: 32em; overflow: auto"


@dataclass(frozen=True)
class Table:
    """Names of operations, and in the last column what is told of each.

    Attributes:
        title: what stands above it; may be empty.
        headers: the names of the columns.
        rows: the cells.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self, width: int | None) -> str:
        """Return a table whose last column takes what is left of the width, or a paragraph for each row if it is wider.

        No word is broken, since words are names.
        """
        columns = list(zip(self.headers, *self.rows, strict=True))
        words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
        widths = [max(COLUMN, word) for word in words[:-1]]
        needed = [max(len(column[0]) + 2, *map(len, column)) for column in columns[:-1]]  # tabulate pads a header
        taken = sum(2 + min(pair) for pair in zip(widths, needed, strict=True))
        last = max(words[-1], LAST_COLUMN if width is None else max(LEAST, width - taken))
        text = tabulate(self.rows, headers=self.headers, maxcolwidths=[*widths, last], disable_numparse=True)
        fits = width is None or max(map(len, text.splitlines())) <= width
        return text if fits else "\n".join(_paragraph(row, width or 0) for row in self.rows)

    def html(self) -> str:
        """Return the same for a notebook."""
        cells = tabulate(self.rows, headers=self.headers, tablefmt="html", disable_numparse=True)
        return f"<p>{html.escape(self.title)}</p>{cells}" if self.title else str(cells)


def html_block(lines: Sequence[str], tables: Sequence[Table]) -> str:
    """Return lines and, in a box that scrolls, the tables below."""
    told = "<br>".join(map(html.escape, lines))
    return f'<p>{told}</p><div style="{BOX}">{"".join(shown.html() for shown in tables)}</div>'


def wrapped(line: str, width: int | None) -> str:
    """Return a line in as many as it takes, each after the first indented."""
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(
        line, max(width, LEAST), subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )


def _paragraph(row: Sequence[str], width: int) -> str:
    """Return a row of a table as its names in a line, and what is told of them below."""
    names = wrapped("  ".join(cell for cell in row[:-1] if cell), width)
    return f"{names}\n{wrapped(INDENT + row[-1], width)}" if row[-1] else names


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts, in the plural if there are several."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
