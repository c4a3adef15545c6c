"""What the pass did and why it did not do the rest: reasons, decisions and the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch.export import ExportedProgram

if TYPE_CHECKING:
    from torch import fx


class FuseError(Exception):
    """The only exception that users of fxfuse see: what was wrong, what was left untouched, what to do."""


class Reason(Enum):
    """Why an operation stayed.  Every sentence says what stands in the way, then what to do about it."""

    TRAINING = (
        "it is in training mode and uses the statistics of each batch; call .eval() on it (or on the model) first"
    )
    BATCH_STATISTICS = (
        "it keeps no running statistics, so that it depends on each batch; "
        "train it with track_running_stats=True, or leave it"
    )
    NOT_LINEAR = (
        "it follows {value}, which is neither a convolution nor a linear layer; "
        "swap the order of the layers if you can retrain, or leave it"
    )
    SEVERAL_USES = (
        "{value} is also used by {users}, which would see the norm applied; "
        "give the other use a layer of its own, or leave it"
    )
    SHARED = (
        "{value} is also used by {users}, and must stay as it is there; "
        "allow_copies=True and structure='graph' let this call have a copy of its own"
    )
    HOOKED = "{value} has hooks, which would see other values; remove them before fusing"
    COMPUTED = (
        "{name} of {value} is computed from the input, so there is no constant to fold into; leave it, "
        "or make it a parameter"
    )
    MUTATED = "{value} is changed in place by {users}; use the out-of-place form of that operation"
    NOT_PER_CHANNEL = (
        "it does not act along the output channels of {value} ({detail}); "
        "check the order of the axes, it may be a mistake in the model"
    )
    UNKNOWN_SHAPE = "the number of axes of {value} is {detail}; pass example_inputs to prove it"
    NOT_FLOATING = (
        "{name} of {value} is {dtype}, and only real floating-point tensors are folded; "
        "fuse before you quantize or convert"
    )
    PROMOTES = "the result would have another dtype ({detail}); convert both to one dtype before fusing"
    MIXED_DEVICE = "it is on {device}, {value} on {other}; move both to one device before fusing"
    NOT_FINITE = (
        "the folded {name} of {value} would not be finite in {dtype}; "
        "fuse in a wider dtype, or look for a tiny running variance"
    )
    NO_VALUES = "{value} is on the meta device and has no values; load its weights before fusing"
    OPAQUE = (
        "it is called by Python code that cannot be traced ({value}: {detail}); "
        "pass example_inputs, so that the code can be captured from a run"
    )
    BRANCHES = (
        "it is called by Python code that may branch for other inputs ({value}: {detail}), so a run proves nothing; "
        "call it directly on the result of the layer before it, or in a submodule of its own"
    )
    REACHED_INTO = (
        "code that was not traced ({users}) reads {value} by itself, and would see another value; "
        "pass example_inputs, or call the enclosing module as a whole"
    )
    NOT_CALLED = "it is not called in the forward that was traced; remove it if it is not needed"
    DIFFERS = (
        "with it the fused model gave another result on the example inputs (relative error {detail}), so the fold "
        "was undone; please report the model"
    )
    OWN_FORWARD = (
        "{value} is called in a way that cannot be written back into its Python class; "
        "use structure='graph', or pass example_inputs"
    )

    def sentence(self, **facts: object) -> str:
        """Return the reason with its facts filled in, as one sentence with advice."""
        known = {"value": "a value", "users": "others", "name": "weight", "detail": "unknown", **facts}
        return self.value.format_map(_Facts(known))


class _Facts(dict[str, object]):
    """Leaves a fact that nobody gave readable, instead of failing while telling what failed."""

    def __missing__(self, key: str) -> str:
        return f"an unknown {key}"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error, and never leaves the engine
    """A rewrite that was not done.  Private: raised deep inside, caught in one place, the engine."""

    def __init__(self, reason: Reason, **facts: object) -> None:
        """Remember the reason and its facts."""
        super().__init__(reason.sentence(**facts))
        self.reason = reason


def require(condition: bool, reason: Reason, **facts: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Refuse the rewrite under way unless ``condition`` holds."""
    if not condition:
        raise Refusal(reason, **facts)


@dataclass(frozen=True)
class Decision:
    """What one rule did at one node, and why.

    Attributes:
        rule: the name of the rule.
        path: the module that does the operation, as the user wrote it (``layer1.0.bn1``), or the node's name.
        kind: the class of that module, or the function's name.
        into: what absorbed it; empty where it stayed.
        reason: why it stayed; None where it was folded.
        detail: the reason as a sentence with its facts, or what the fold rests on.
        assumed: the fold rests on an assumption, which ``detail`` names.
        copied_bytes: what untying a shared weight costs.
    """

    rule: str
    path: str
    kind: str
    into: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    assumed: bool = False
    copied_bytes: int = 0

    @property
    def folded(self) -> bool:
        """Whether the operation is gone."""
        return self.reason is None

    @property
    def outcome(self) -> str:
        """``"folded"`` or ``"skipped"``."""
        return "folded" if self.folded else "skipped"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        reason = None if self.reason is None else self.reason.name
        return {"outcome": self.outcome, **self.__dict__, "into": list(self.into), "reason": reason}


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

    def by_reason(self) -> Counter[Reason]:
        """Return how many operations stayed for each reason."""
        return Counter(d.reason for d in self.decisions if d.reason is not None)

    def __bool__(self) -> bool:
        """Whether anything was folded."""
        return bool(self.folded)

    def __str__(self) -> str:
        """Return a table: folded operations first, then what stayed and why, then totals."""
        rows = [
            (d.path, d.kind, "-> " + ", ".join(d.into) if d.folded else "stays", d.detail)
            for d in (*self.folded, *self.skipped)
        ]
        table = tabulate(
            rows, headers=("operation", "kind", "result", "why"), maxcolwidths=[44, 24, 44, 72], disable_numparse=True
        )
        assumed = sum(d.assumed for d in self.folded)
        total = f"{len(self.folded)} folded, {len(self.skipped)} left"
        total += f"; {assumed} of the folds rest on an assumption" if assumed else ""
        total += f"; shared weights untied: {self.copied_bytes:,} bytes" if self.copied_bytes else ""
        return "\n".join([*([table, ""] if rows else []), total, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "structure": self.structure,
            "folded": [d.to_dict() for d in self.folded],
            "skipped": [d.to_dict() for d in self.skipped],
            "copied_bytes": self.copied_bytes,
            "notes": list(self.notes),
            "renamed": self.renamed,
        }

    @staticmethod
    def of(result: object) -> Report:
        """Return the report of a model that ``fx_fuse`` returned.

        Raises:
            FuseError: if the object carries no report.
        """
        result = result.graph_module if isinstance(result, ExportedProgram) else result
        meta = getattr(result, "meta", None)
        report = meta.get(KEY) if isinstance(meta, dict) else getattr(result, "__dict__", {}).get(ATTRIBUTE)
        if not isinstance(report, Report):
            raise FuseError(f"{type(result).__name__} carries no report; pass what fx_fuse returned.")
        return report

    def attach(self, result: fx.GraphModule | Any) -> None:
        """Leave the report where ``of`` finds it."""
        if isinstance(getattr(result, "meta", None), dict):
            result.meta = {**result.meta, KEY: self}
        else:
            result.__dict__[ATTRIBUTE] = self


KEY = "fxfuse"
ATTRIBUTE = "_fxfuse_report"
