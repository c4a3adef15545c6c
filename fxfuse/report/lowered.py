"""What each kernel took in, and what stayed as it was, beside what was folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fxfuse.report.errors import FuseError
from fxfuse.report.report import Report
from fxfuse.report.table import Table, html_block

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Lowered:
    """What became of one layer.

    Attributes:
        path: the layer.
        kind: its class, or the function.
        takes: what its kernel does besides: the sum, and the activation.
        in_place: the sum is written into the value that is added.
        left: why the layer stays as it is; empty where it is a kernel.
    """

    path: str
    kind: str
    takes: tuple[str, ...] = ()
    in_place: bool = False
    left: str = ""


@dataclass(frozen=True)
class LoweringReport(Report):
    """The report of the fused model, with one ``Lowered`` for every layer in ``lowered``."""

    lowered: tuple[Lowered, ...] = ()

    @property
    def kernels(self) -> tuple[Lowered, ...]:
        """The layers that are kernels."""
        return tuple(layer for layer in self.lowered if not layer.left)

    @property
    def left(self) -> tuple[Lowered, ...]:
        """The layers that stay as they are, each with the reason."""
        return tuple(layer for layer in self.lowered if layer.left)

    def text(self, width: int | None = None) -> str:
        """Return the table of the folds, then that of the kernels."""
        kernels = self._kernels()
        return "\n\n".join([super().text(width), *([kernels.text(width)] if kernels.rows else []), self._taken()])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        return super()._repr_html_() + html_block([self._taken()], [self._kernels()])

    def _kernels(self) -> Table:
        rows = [(one.path, one.kind, _takes(one), one.left) for one in (*self.kernels, *self.left)]
        return Table("", ("layer", "kind", "takes in", "why"), rows)

    def _taken(self) -> str:
        taken = sum(len(one.takes) for one in self.kernels)
        return f"kernels: {len(self.kernels)}, operations taken in: {taken}, layers left: {len(self.left)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {**super().to_dict(), "lowered": [{**one.__dict__, "takes": list(one.takes)} for one in self.lowered]}


def report_of(fused: nn.Module, layers: tuple[Lowered, ...]) -> LoweringReport:
    """Return the report of a fused model, with what became of its layers."""
    try:
        folds = Report.of(fused)
    except FuseError:
        folds = Report()
    return LoweringReport(folds.decisions, folds.structure, folds.notes, folds.renamed, layers, plan=folds.plan)


def _takes(one: Lowered) -> str:
    return "stays" if one.left else ", ".join(one.takes) + (" (in place)" if one.in_place else "")
