"""A model of somebody else's through the forms of graph: what is folded, and how exact the result is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fxfuse import Reason, Report, explain, fx_fuse
from fxfuse.cli.models import randomize
from tests.support.samples import FOLDS
from tests.zoo.checks import error

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMS = ("traced", "exported", "core_aten", "program")


@dataclass(frozen=True)
class Measured:
    """What a form gave.

    Attributes:
        folded: the norms that went.
        left: the norms that stayed.
        error: the largest difference, relative to the largest output.
    """

    folded: int
    left: int
    error: float


def prepared(model: nn.Module) -> nn.Module:
    """The model in float64 and evaluation mode, with norms that are far from fresh ones."""
    model.eval()
    randomize(model)
    return model.double()


def forms_of(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """The model in each form."""
    program = torch.export.export(model, (x,))
    core = program.run_decompositions()
    return {"traced": model, "exported": program.module(), "core_aten": core.module(), "program": program}


def measured(model: nn.Module, x: Tensor) -> dict[str, Measured]:
    """Fuse the model in each form."""
    with torch.no_grad():
        expected = model(x)
        found = {}
        for name, argument in forms_of(model, x).items():
            fused = fx_fuse(argument)
            report = Report.of(fused)
            runs = fused.module() if name == "program" else fused
            folded = sum(is_norm(decision.kind) for decision in report.folded)
            left = sum(is_norm(decision.kind) for decision in report.skipped)
            found[name] = Measured(folded, left, error(expected, runs(x)))
    return found


def obstacles(model: nn.Module, x: Tensor) -> dict[str, set[tuple[str, Reason | None, Reason | None, str]]]:
    """For each form, the norms that stay where nothing is merged, and what stands in their way in each direction."""
    reports = {name: explain(argument, rules=FOLDS) for name, argument in forms_of(model, x).items()}
    stay = {name: [d for d in report.skipped if is_norm(d.kind)] for name, report in reports.items()}
    return {name: {(d.path, d.reason, d.downstream, d.detail) for d in decisions} for name, decisions in stay.items()}


def is_norm(kind: str) -> bool:
    """Whether a decision is about a norm, and not about arithmetic."""
    return "norm" in kind.lower()
