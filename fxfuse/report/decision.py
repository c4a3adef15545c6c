"""One decision of the pass: what became of an operation, and why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.report.cost import Cost
    from fxfuse.report.reasons import Reason

Subject: TypeAlias = Literal["norm", "constants", "merge"]


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
        subject: ``"norm"`` for a norm that a fold can remove; ``"constants"`` for other constants, such as the weight
            and bias of a layer norm; ``"merge"`` for layers that become one, or could not.
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
    subject: Subject = "norm"

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
        return replace(self, detail=f"{self.detail}. Downstream: {told}", downstream=other.reason)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = {"outcome": self.outcome, "evidence": self.evidence, **self.__dict__, "into": list(self.into)}
        del data["nodes"]
        for name in ("reason", "downstream"):
            data[name] = None if data[name] is None else data[name].name
        for name in ("before", "after"):
            data[name] = None if data[name] is None else dict(data[name].__dict__)
        return data
