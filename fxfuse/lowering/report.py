"""What each kernel took in, and what stayed as it was, beside what was folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from fxfuse.report.errors import FuseError
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.lowering.plan import Kernel, Plan
    from fxfuse.lowering.reading import Reading


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
    """The report of the fused model, and what each kernel of the lowered one took in.

    Attributes:
        lowered: one for every layer.
    """

    lowered: tuple[Lowered, ...] = ()

    @property
    def kernels(self) -> tuple[Lowered, ...]:
        """The layers that are kernels."""
        return tuple(layer for layer in self.lowered if not layer.left)

    @property
    def left(self) -> tuple[Lowered, ...]:
        """The layers that stay as they are, each with the reason."""
        return tuple(layer for layer in self.lowered if layer.left)

    def __str__(self) -> str:
        """Return the table of the folds, then that of the kernels."""
        rows = [(one.path, one.kind, _takes(one), one.left) for one in (*self.kernels, *self.left)]
        table = tabulate(
            rows, headers=("layer", "kind", "takes in", "why"), maxcolwidths=[44, 24, 44, 72], disable_numparse=True
        )
        taken = sum(len(one.takes) for one in self.kernels)
        total = f"{len(self.kernels)} kernels, which take in {taken} operations; {len(self.left)} layers left"
        return "\n\n".join([super().__str__(), *([table] if rows else []), total])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {**super().to_dict(), "lowered": [{**one.__dict__, "takes": list(one.takes)} for one in self.lowered]}


def report_of(fused: fx.GraphModule, reading: Reading, plan: Plan) -> LoweringReport:
    """Return the report of a plan."""
    try:
        folds = Report.of(fused)
    except FuseError:
        folds = Report()
    told = [(kernel.nodes[0], _told(reading, kernel)) for kernel in plan.kernels.values()]
    told += [(node, Lowered(reading.path(node), reading.kind(node), left=why)) for node, why in plan.left]
    ordered = tuple(one for _, one in sorted(told, key=lambda pair: reading.index[pair[0]]))
    return LoweringReport(folds.decisions, folds.structure, folds.notes, folds.renamed, ordered)


def _told(reading: Reading, kernel: Kernel) -> Lowered:
    layer = kernel.layer
    takes = ("sum",) * layer.sums + (() if layer.activation is None else (layer.activation.name,))
    return Lowered(layer.path, reading.kind(kernel.nodes[0]), takes, layer.in_place)


def _takes(one: Lowered) -> str:
    return "stays" if one.left else ", ".join(one.takes) + (" (in place)" if one.in_place else "")
