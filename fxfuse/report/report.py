"""What the pass did and why it did not do the rest: reasons, decisions and the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch.export import ExportedProgram

from fxfuse.report.cost import Cost
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.report.reasons import Reason


@dataclass(frozen=True)
class Decision:
    """What one rule did at one node, and why.

    Example:
        >>> import torch
        >>> from fxfuse import explain
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8)).eval()
        >>> decision = explain(model).folded[0]
        >>> decision.rule, decision.path, decision.kind, decision.into, decision.assumed
        ('fold_upstream', '1', 'BatchNorm1d', ('0',), True)

    Attributes:
        rule: the name of the rule.
        path: the module that does the operation, as the user wrote it (``layer1.0.bn1``), or the node's name.
        kind: the class of that module, or the function's name.
        into: what absorbed it; empty where it stayed.
        reason: why it stayed; None where it was folded.
        detail: the reason as a sentence with its facts, or what the fold rests on.
        assumed: the fold rests on an assumption, which ``detail`` names.
        copied_bytes: what untying a shared weight costs.
        downstream: why it could not go into later layers, where that was tried as well.
        before: what the operations of a merge cost, told once for all of them; None for other folds.
        after: what the one costs that is left of them.
        nodes: the nodes that it is about, while the pass runs; the report of a result holds none, so that it can be
            copied and saved without the graph.
        recorded: the fold rests on what untraced code did on the example inputs, and is checked at run time.
    """

    rule: str
    path: str
    kind: str
    into: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    assumed: bool = False
    copied_bytes: int = 0
    downstream: Reason | None = None
    before: Cost | None = None
    after: Cost | None = None
    nodes: tuple[fx.Node, ...] = field(default=(), repr=False, compare=False)
    recorded: bool = False

    @property
    def evidence(self) -> str:
        """What a fold rests on: ``"traced"`` code, a ``"recorded"`` run, or what is ``"assumed"``; empty for none."""
        if not self.folded:
            return ""
        return "assumed" if self.assumed else "recorded" if self.recorded else "traced"

    @property
    def folded(self) -> bool:
        """Whether the operation is gone."""
        return self.reason is None

    @property
    def outcome(self) -> str:
        """``"folded"`` or ``"skipped"``."""
        return "folded" if self.folded else "skipped"

    def joined(self, other: Decision) -> Decision:
        """Return one decision for an operation that two rules refused: the first obstacle each way."""
        if other.reason is None or other.detail == self.detail:
            return self
        told, advice = other.detail, f"; {other.reason.advice}"
        told = told.removesuffix(advice) if self.detail.endswith(advice) else told  # the same advice once is enough
        return replace(self, detail=f"{self.detail}. Onwards: {told}", downstream=other.reason)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = {"outcome": self.outcome, "evidence": self.evidence, **self.__dict__, "into": list(self.into)}
        del data["nodes"]
        for name in ("reason", "downstream"):
            data[name] = None if data[name] is None else data[name].name
        for name in ("before", "after"):
            data[name] = None if data[name] is None else dict(data[name].__dict__)
        return data


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
        decisions: one for every operation that was folded and every batch norm that was not.
        structure: ``"graph"`` or ``"module"``: which kind of object came back.
        notes: what else a user should know, a sentence each (methods that a GraphModule cannot keep, say).
        renamed: state_dict names of the argument -> names in the result, where they differ.
    """

    decisions: tuple[Decision, ...] = ()
    structure: str = "graph"
    notes: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def folded(self) -> tuple[Decision, ...]:
        """The decisions that removed something."""
        return tuple(d for d in self.decisions if d.folded)

    @property
    def skipped(self) -> tuple[Decision, ...]:
        """The decisions that left something, each with its reason."""
        return tuple(d for d in self.decisions if not d.folded)

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
        """Return a table: folded operations first, then what stayed and why, then totals."""
        rows = [(d.path, d.kind, _result(d), d.evidence, d.detail) for d in (*self.folded, *self.skipped)]
        headers = ("operation", "kind", "result", "evidence", "why")
        table = tabulate(rows, headers=headers, maxcolwidths=[44, 24, 44, 9, 72], disable_numparse=True)
        assumed = sum(d.evidence == "assumed" for d in self.folded)
        recorded = sum(d.evidence == "recorded" for d in self.folded)
        total = f"{len(self.folded)} folded, {len(self.skipped)} left"
        total += f"; {recorded} of the folds are recorded on the example inputs, and checked" if recorded else ""
        total += f"; {assumed} of the folds rest on an assumption" if assumed else ""
        total += f"; shared weights untied: {self.copied_bytes:,} bytes" if self.copied_bytes else ""
        total += f"; merges saved {self.saved}" if self.saved.kernels else ""
        return "\n".join([*([table, ""] if rows else []), total, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "structure": self.structure,
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


KEY = "fxfuse"
ATTRIBUTE = "_fxfuse_report"
