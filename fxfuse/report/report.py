"""What the pass did and why it did not do the rest: reasons, decisions and the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch.export import ExportedProgram

from fxfuse.report.cost import Cost
from fxfuse.report.errors import FuseError
from fxfuse.report.size import Size, summary
from fxfuse.report.table import Table, counted, html_block, wrapped

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.report.decision import Decision
    from fxfuse.report.reasons import Reason


@dataclass(frozen=True)
class Report:
    """Everything that the pass decided; prints as a table, and is true if anything was folded.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> Report.of(fx_fuse(model)).folded[0].into
        ('0',)

    Attributes:
        decisions: one for every operation that was folded, every norm that was not, and every merge that was refused.
        structure: ``"graph"`` or ``"module"``: which kind of object came back.
        notes: what else a user should know, a sentence each (methods that a GraphModule cannot keep, say).
        renamed: state_dict names of the argument -> names in the result, where they differ.
        plan: the ``fxfuse.Plan`` of the weights; None where they were computed in a way that could not be recorded.
        sizes: of the model and of the result; None where they were not asked for: ``explain`` finds them.
    """

    decisions: tuple[Decision, ...] = ()
    structure: str = "graph"
    notes: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    plan: Any = field(default=None, repr=False, compare=False, kw_only=True)
    sizes: tuple[Size, Size] | None = field(default=None, compare=False, kw_only=True)

    @property
    def folded(self) -> tuple[Decision, ...]:
        """The decisions that removed something."""
        return tuple(d for d in self.decisions if d.folded)

    @property
    def skipped(self) -> tuple[Decision, ...]:
        """The decisions that left something, each with its reason: norms, constants, and refused merges."""
        return tuple(d for d in self.decisions if not d.folded)

    @property
    def norms_left(self) -> tuple[Decision, ...]:
        """The norms that could have gone into other layers, and stay."""
        return tuple(d for d in self.skipped if d.subject == "norm")

    @property
    def refused_merges(self) -> tuple[Decision, ...]:
        """The layers that could not become one."""
        return tuple(d for d in self.skipped if d.subject == "merge")

    @property
    def ok(self) -> bool:
        """Whether no norm is left."""
        return not self.norms_left

    @property
    def copied_bytes(self) -> int:
        """The bytes that untying shared weights costs."""
        return sum(d.copied_bytes for d in self.decisions)

    @property
    def saved(self) -> Cost:
        """What the merges save: multiply-adds where the sizes of the values are known, parameters and kernels."""
        pairs = [(d.before, d.after) for d in self.decisions]
        return sum((b - a for b, a in pairs if b is not None and a is not None), Cost(None))

    def by_reason(self) -> Counter[Reason]:
        """Return how many operations stayed for each reason."""
        return Counter(d.reason for d in self.decisions if d.reason is not None)

    def __bool__(self) -> bool:
        """Whether anything was folded."""
        return bool(self.folded)

    def __str__(self) -> str:
        """Return the tables as ``text`` does."""
        return self.text()

    def __repr__(self) -> str:
        """Return the totals."""
        return f"<Report: {self._totals()}>"

    def _repr_html_(self) -> str:
        """Return the tables for a notebook, the totals first."""
        return html_block(self._lines(), self._tables())

    def text(self, width: int | None = None) -> str:
        """Return a table of what folded and then what stayed and why, one of refused merges, and totals.

        Example:
            >>> import torch
            >>> from fxfuse import explain
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
            >>> print(explain(model).text(width=80).splitlines()[-1])
            1 folded, 0 norms left

        Args:
            width: the characters of a line; names are never broken, so that a line can be longer.  Where a table
                is wider, it becomes a paragraph for each operation.
        """
        tables = [f"{told.title}\n\n{told.text(width)}".lstrip() for told in self._tables()]
        return "\n\n".join([*tables, "\n".join(wrapped(line, width) for line in self._lines())])

    def _tables(self) -> list[Table]:
        merges, others = self.refused_merges, [d for d in self.skipped if d.subject != "merge"]
        rows = [(d.path, d.kind, _result(d), d.evidence, d.detail) for d in (*self.folded, *others)]
        refused = [(d.path, d.kind, d.detail) for d in merges]
        tables = (
            Table("", ("operation", "kind", "result", "evidence", "why"), rows),
            Table("Layers that could not become one:", ("operation", "kind", "why"), refused),
        )
        return [told for told in tables if told.rows]

    def _lines(self) -> list[str]:
        return [*([] if self.sizes is None else [summary(*self.sizes)]), self._totals(), *self.notes]

    def _totals(self) -> str:
        evidence = Counter(d.evidence for d in self.folded)
        stays = Counter(d.subject for d in self.skipped)
        recorded, assumed = evidence["recorded"], evidence["assumed"]
        parts = (
            (True, f"{len(self.folded)} folded, {counted(stays['norm'], 'norm')} left"),
            (stays["constants"], f"the constants of {counted(stays['constants'], 'operation')} stay"),
            (stays["merge"], f"{counted(stays['merge'], 'merge')} refused"),
            (recorded, f"{counted(recorded, 'fold')} recorded on the example inputs, and checked"),
            (assumed, f"{counted(assumed, 'fold')} on an assumption ({PROOF})"),
            (self.copied_bytes, f"shared weights untied: {self.copied_bytes:,} bytes"),
            (self.saved.kernels, f"merges saved {self.saved}"),
        )
        return "; ".join(text for said, text in parts if said)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "structure": self.structure,
            "ok": self.ok,
            "norms_left": len(self.norms_left),
            "sizes": None if self.sizes is None else [dict(size.__dict__) for size in self.sizes],
            "folded": [d.to_dict() for d in self.folded],
            "skipped": [d.to_dict() for d in self.skipped],
            "copied_bytes": self.copied_bytes,
            "saved": dict(self.saved.__dict__),
            "notes": list(self.notes),
            "renamed": self.renamed,
        }

    @staticmethod
    def of(result: object) -> Report:
        """Return the report of a model that ``fx_fuse`` returned.

        Args:
            result: a ``GraphModule``, a model of the user's class, or an ``ExportedProgram``.

        Raises:
            FuseError: if the object carries no report.
        """
        result = result.graph_module if isinstance(result, ExportedProgram) else result
        meta = getattr(result, "meta", None)
        report = meta.get(KEY) if isinstance(meta, dict) else getattr(result, "__dict__", {}).get(ATTRIBUTE)
        if not isinstance(report, Report):
            raise FuseError(f"{type(result).__name__} carries no report; pass what fx_fuse returned.")
        return report

    def noted(self, note: str) -> Report:
        """Return the report with one note more."""
        return replace(self, notes=(*self.notes, note))

    def attach(self, result: fx.GraphModule | Any) -> None:
        """Leave the report where ``of`` finds it, without the nodes, which would keep the graph in memory."""
        result = result.graph_module if isinstance(result, ExportedProgram) else result
        report = replace(self, decisions=tuple(replace(decision, nodes=()) for decision in self.decisions))
        if isinstance(getattr(result, "meta", None), dict):
            result.meta = {**result.meta, KEY: report}
        else:
            result.__dict__[ATTRIBUTE] = report


def _result(decision: Decision) -> str:
    """Return what became of an operation, in a word or by the names of what absorbed it."""
    if not decision.folded:
        return "stays"
    return "-> " + ", ".join(decision.into) if decision.into else "removed"


PROOF = "example_inputs or the exported program prove it"
KEY = "fxfuse"
ATTRIBUTE = "_fxfuse_report"
