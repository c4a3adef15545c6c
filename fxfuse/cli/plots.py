"""The bar chart of ``fxfuse bench --plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.cli import failures, models
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fxfuse.cli.bench import Row

FUSED_COLOUR, REMOVED_COLOUR = "tab:blue", "lightgrey"


def plot_speed_ups(rows: Sequence[Row], path: Path) -> None:
    """Draw the speed-up of each row, and behind it that of the model without norms, into an image file.

    Raises:
        FuseError: matplotlib is not installed, or the file cannot be written.
    """
    figure = models.need("matplotlib.figure").Figure(figsize=(8, 1 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    removed = [row.norms_removed_speed_up or 0 for row in rows]
    axes.barh(places, removed, height=0.8, color=REMOVED_COLOUR, label="norms removed")
    bars = axes.barh(places, [row.speed_up for row in rows], height=0.45, color=FUSED_COLOUR, label="fused")
    axes.bar_label(bars, [f"{row.speed_up:.2f}" for row in rows], label_type="center", color="white")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [f"{row.model}, batch {row.batch}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("speed-up: time before / time after")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise FuseError(f"the chart cannot be written to {path}: {failures.first_line(error)}") from error
