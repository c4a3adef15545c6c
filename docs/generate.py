"""Writes the pages that are tables of what the code says: reasons.md, operators.md and commands.md.

usage: python docs/generate.py
"""

from __future__ import annotations

import argparse
import inspect
import pathlib
from typing import TYPE_CHECKING

from tabulate import tabulate
from torch import nn

from fxfuse import Reason
from fxfuse.cli.parser import parser
from fxfuse.graph.registry import Columns
from fxfuse.operators import OPERATORS, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = pathlib.Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; change that, not this. -->"


def reasons() -> str:
    """Return the page of reasons."""
    rows = [(f"`{reason.name}`", *_parts(reason)) for reason in Reason]
    table = tabulate(rows, headers=("reason", "why the operation stays", "what to do"), tablefmt="github")
    text = (
        "Every norm that stays, and every refused merge, is in the report with one of these reasons. There, the words\n"
        "in braces are the layers, names and numbers of the case.\n"
        "[How to find out more](how_to.md#find-out-why-a-norm-stays)."
    )
    return f"{NOTE}\n\n# Why a norm stays\n\n{text}\n\n{table}\n"


def _parts(reason: Reason) -> tuple[str, str]:
    why, _, advice = reason.value.partition("; ")
    return why, advice


def operators() -> str:
    """Return the page of operators."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for target, row in OPERATORS.items():
        if "torchvision" in str(getattr(target, "__module__", "")):
            continue  # only there once it is imported
        role = next((cls.__name__ for cls in row.view.__mro__ if cls.__module__.endswith("roles")), "")
        what = (inspect.getdoc(row.view) or "").splitlines()[0] if row.plays else ""
        rows.setdefault((f"`{row.name}`", role, what, _facts(row)), []).append(_written(target, row))
    lines = [
        (name, role, ", ".join(dict.fromkeys(targets)), facts, what)
        for (name, role, what, facts), targets in sorted(rows.items())
    ]
    headers = ("operator", "role", "recognised as", "facts", "what it is")
    text = (
        "What fxfuse recognises. [`fxfuse.register`](extending.md) adds a row, and its arguments say what the facts\n"
        "mean; the roles are those of the [glossary](idea.md#glossary), where a source is an `AffineSource`, a\n"
        "carrier a `Carrier`, a linear map a `Linear`. Operations without a role let no affine pass. With torchvision\n"
        "there is its deformable convolution as well."
    )
    return f"{NOTE}\n\n# Operators\n\n{text}\n\n{tabulate(lines, headers=headers, tablefmt='github')}\n"


def _facts(row: Operator) -> str:
    known = {name: getattr(row, name) for name in Columns.__annotations__ if getattr(row, name) not in (None, ())}
    return ", ".join(f"{name}: {'computed' if callable(value) else value}" for name, value in known.items())


def _written(target: object, row: Operator) -> str:
    if isinstance(target, type) and issubclass(target, nn.Module):
        return f"`{'nn' if target.__module__.startswith('torch.') else 'fxfuse'}.{target.__name__}`"
    if isinstance(target, str):
        return f"`Tensor.{target}`"
    module = {"torch.nn.functional": "F", "_operator": "operator", "fxfuse.modules.guards": "fxfuse"}
    name = getattr(target, "__name__", row.name)
    return f"`{module.get(getattr(target, '__module__', None) or 'torch', 'torch')}.{name}`"


def commands() -> str:
    """Return the page of the commands."""
    text = "Functions and classes have a page of [their own](reference.md)."
    return "\n\n".join([NOTE, "# Commands", text, *_commands()]) + "\n"


def _commands() -> Iterator[str]:
    """Yield the part about each command: what it is for, and a table of its arguments."""
    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        rows = [(f"`{_written_argument(a)}`", _expanded(a)) for a in command._actions if a.dest != "help"]
        table = tabulate(rows, headers=("argument", "meaning"), tablefmt="github")
        yield f"## fxfuse {name}\n\nTo {helps[name]}.\n\n{table}"


def _written_argument(action: argparse.Action) -> str:
    metavar = str(action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else ""))
    several = {"+": f"{metavar} ...", "*": f"[{metavar} ...]"}
    value = several.get(str(action.nargs), "" if action.nargs == 0 else metavar)
    return " ".join([*action.option_strings, *([value] if value else [])])


def _expanded(action: argparse.Action) -> str:
    return str(action.help) % {"default": action.default}


if __name__ == "__main__":
    for page in (reasons, operators, commands):
        (HERE / f"{page.__name__}.md").write_text(page())
