"""Writes the pages that are tables of what the code says: reasons.md and operators.md.

usage: python docs/generate.py
"""

from __future__ import annotations

import inspect
import pathlib

from tabulate import tabulate
from torch import nn

from fxfuse import Reason
from fxfuse.operators import OPERATORS, Operator

HERE = pathlib.Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; change that, not this. -->"


def reasons() -> str:
    """Return the page of reasons."""
    rows = [(f"`{reason.name}`", *_parts(reason)) for reason in Reason]
    table = tabulate(rows, headers=("reason", "why the operation stays", "what to do"), tablefmt="github")
    text = (
        "Every operation that is not folded is in the report with one of these reasons. In the report, the words in\n"
        "braces are the layers, names and numbers of the case."
    )
    return f"{NOTE}\n\n# Why a norm stays\n\n{text}\n\n{table}\n"


def _parts(reason: Reason) -> tuple[str, str]:
    why, _, advice = reason.value.partition("; ")
    return why, advice


def operators() -> str:
    """Return the page of operators."""
    rows: dict[str, tuple[str, list[str], str]] = {}
    for target, row in OPERATORS.items():
        role = next(cls.__name__ for cls in row.view.__mro__ if cls.__module__.endswith("roles"))
        entry = rows.setdefault(row.name, (role, [], inspect.getdoc(row.view) or ""))
        entry[1].append(_written(target, row))
    lines = [
        (f"`{name}`", role, ", ".join(dict.fromkeys(targets)), doc.splitlines()[0])
        for name, (role, targets, doc) in sorted(rows.items())
    ]
    table = tabulate(lines, headers=("operator", "role", "recognised as", "what it is"), tablefmt="github")
    text = "What fxfuse recognises. `fxfuse.register` adds a row; `docs/idea.md` explains the roles."
    return f"{NOTE}\n\n# Operators\n\n{text}\n\n{table}\n"


def _written(target: object, row: Operator) -> str:
    if isinstance(target, type) and issubclass(target, nn.Module):
        return f"`{'nn' if target.__module__.startswith('torch.') else 'fxfuse'}.{target.__name__}`"
    if isinstance(target, str):
        return f"`Tensor.{target}`"
    module = {"torch.nn.functional": "F", "_operator": "operator", "fxfuse.guards": "fxfuse"}
    name = getattr(target, "__name__", row.name)
    return f"`{module.get(getattr(target, '__module__', None) or 'torch', 'torch')}.{name}`"


if __name__ == "__main__":
    (HERE / "reasons.md").write_text(reasons())
    (HERE / "operators.md").write_text(operators())
