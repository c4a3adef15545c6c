"""What was decided about a model, as one HTML page: its graphs before and after, and the table of decisions."""

from __future__ import annotations

import html
import json
import string
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fxfuse
from fxfuse.cli.export_formats import replacing
from fxfuse.cli.html_graph import STATES, rows_of
from fxfuse.pipeline.entry import checked_rules, run_pass
from fxfuse.pipeline.options import Options
from fxfuse.pipeline.sizes import sized_report
from fxfuse.report.size import summary
from fxfuse.rules import DEFAULT_RULES, MERGES

if TYPE_CHECKING:
    import os

    from torch import nn
    from torch.export import ExportedProgram
    from typing_extensions import Unpack

    from fxfuse.pipeline.attempt import Attempt
    from fxfuse.pipeline.options import FuseOptions
    from fxfuse.report.decision import Decision
    from fxfuse.report.report import Report

EVIDENCE = {
    "traced": "the code of the model proves it",
    "recorded": "the run on the example inputs showed it, and the fused model checks every other run",
    "assumed": "it holds for the usual input; where a shape is assumed, the fused model checks it",
}
_MERGES = {rule.__name__ for rule in MERGES}


def write(
    path: str | os.PathLike[str],
    model: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    *,
    title: str = "",
    **options: Unpack[FuseOptions],
) -> Report:
    """Write a page that shows what ``fx_fuse`` would do; it needs nothing else, and asks for nothing on any network.

    Args:
        path: the file to write, which appears complete or not at all.
        model: as for ``fx_fuse``; it is not changed.
        example_inputs: as for ``fx_fuse``.
        title: what the page calls the model; by default its class.
        options: the other options of ``fx_fuse``.

    Returns:
        What ``explain`` returns.

    Raises:
        FuseError: if the model or the inputs cannot be used, or the file cannot be written.
    """
    with replacing(Path(path)) as written:  # which finds out first whether it can be
        found = Explained.of(model, example_inputs, **options)
        written.write_text(found.page(title), encoding="utf-8")
    return found.report


def page(
    model: nn.Module | ExportedProgram, example_inputs: Any = None, *, title: str = "", **options: Unpack[FuseOptions]
) -> str:
    """Return the same page as text.

    Example:
        >>> import torch
        >>> from fxfuse import html_report
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> html_report.page(model).splitlines()[0]
        '<!DOCTYPE html>'

    Args:
        model: as for ``fx_fuse``; it is not changed.
        example_inputs: as for ``fx_fuse``.
        title: what the page calls the model; by default its class.
        options: the other options of ``fx_fuse``.

    Raises:
        FuseError: if the model or the inputs cannot be used.
    """
    return Explained.of(model, example_inputs, **options).page(title)


@dataclass(frozen=True)
class Explained:
    """What was decided about a model, before a page of it is made.

    Attributes:
        name: the class of the model.
        report: what ``explain`` returns; notes can be added to it.
        attempt: the graphs.
    """

    name: str
    report: Report
    attempt: Attempt

    @staticmethod
    def of(model: nn.Module | ExportedProgram, example_inputs: Any = None, **options: Unpack[FuseOptions]) -> Explained:
        """Decide, as ``explain`` does."""
        given: Any = {**options, "rules": checked_rules(options.get("rules", DEFAULT_RULES)), "inplace": False}
        attempt, result = run_pass(model, example_inputs, Options(**given))
        return Explained(type(model).__name__, sized_report(model, result, example_inputs), attempt)

    def noted(self, note: str) -> Explained:
        """Return the same with one note more."""
        return replace(self, report=self.report.noted(note))

    def page(self, title: str = "") -> str:
        """Return the page as text."""
        return _filled(title or self.name, self.report, _data(self.attempt, self.report))


class _Page(string.Template):
    """A page of which the style and the script may hold any dollar sign."""

    delimiter = "%%"


def _filled(title: str, report: Report, data: dict[str, Any]) -> str:
    """Return the page; what the user named can end neither an element nor the script."""
    template = resources.files("fxfuse.cli").joinpath("html_report.html").read_text(encoding="utf-8")
    text = json.dumps({"title": title, **data}, separators=(",", ":")).replace("<", "\\u003c")
    return _Page(template).substitute(title=html.escape(title), report=html.escape(str(report)), data=text)


def _data(attempt: Attempt, report: Report) -> dict[str, Any]:
    """Return everything that the page shows."""
    captured, decisions = attempt.captured, attempt.decisions
    order = {path: number for number, path in enumerate(captured.paths.values())}
    parts = [
        {"path": part.path, "assumed": part.assumed, "rows": rows_of(editor, decisions)}
        for part, editor in sorted(attempt.edits, key=lambda edit: order[edit[0].path])
    ]
    opaque = {captured.paths[module]: why for module, why in captured.opaque.items()}
    return {
        "version": fxfuse.__version__,
        "structure": report.structure,
        "states": STATES,
        "evidence": EVIDENCE,
        "size": "" if report.sizes is None else summary(*report.sizes),
        "totals": _totals(report),
        "notes": report.notes,
        "parts": parts,
        "opaque": [[path or type(captured.model).__name__, why] for path, why in opaque.items()],
        "decisions": [_row(decision) for decision in decisions],
    }


def _totals(report: Report) -> list[list[Any]]:
    """Return the numbers at the head of the page: each with its words, and what all decisions have that it counts."""
    words = {"norm": ("norms", "left"), "constants": ("other constants", "stay"), "merge": ("merges", "refused")}
    found = Counter(_counted(decision) for decision in report.decisions)
    order = [("folded", "norm"), ("folded", "constants"), ("merged", ""), *(("left", subject) for subject in words)]
    totals: list[list[Any]] = []
    for state, subject in (key for key in order if found[key] or key[1] == "norm"):  # norms, even where there are none
        what, verb = words.get(subject, ("layers", "merged"))
        told = f"{what} {verb if state == 'left' else state}"
        totals.append([f"{found[state, subject]:,}", told, [tag for tag in (state, subject) if tag]])
    evidence = Counter(decision.evidence for decision in report.folded)
    rests = {"recorded": "rest on the run that was recorded", "assumed": "rest on an assumption"}
    totals += [[f"{evidence[name]:,}", told, [name]] for name, told in rests.items() if evidence[name]]
    saved = report.saved
    if saved.kernels:
        saves = {"kernels": saved.kernels, "parameters": saved.parameters, "multiply-adds": saved.multiply_adds}
        totals += [[f"{n:,}", f"{what} saved by merges", []] for what, n in saves.items() if n is not None]
    if report.copied_bytes:
        totals.append([f"{report.copied_bytes:,}", "bytes of shared weights untied", []])
    return totals


def _counted(decision: Decision) -> tuple[str, str]:
    """Return under which number a decision is counted; layers that merged are counted together."""
    state = _state(decision)
    return state, "" if state == "merged" else decision.subject


def _state(decision: Decision) -> str:
    """Return what became of what a decision is about, in the words of the legend."""
    if not decision.folded:
        return "left"
    return "merged" if decision.rule in _MERGES else "folded"


def _row(decision: Decision) -> dict[str, Any]:
    """Return a row of the table."""
    reasons = [reason.name for reason in (decision.reason, decision.downstream) if reason is not None]
    return {
        "state": _state(decision),
        "path": decision.path,
        "kind": decision.kind,
        "into": decision.into,
        "why": decision.detail,
        "rule": decision.rule,
        "subject": decision.subject,
        "evidence": decision.evidence,
        "reasons": reasons,
    }
