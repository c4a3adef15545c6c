"""Writes the pages that are what the code says: reasons.md, operators.md and reference.md.

usage: python docs/generate.py        # the reference needs griffe, which comes with the extra "dev"
"""

from __future__ import annotations

import argparse
import inspect
import pathlib
import re
import textwrap
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import nn

import fxfuse
from fxfuse import Reason
from fxfuse.cli import main as cli
from fxfuse.graph.registry import Columns
from fxfuse.operators import OPERATORS, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import griffe

HERE = pathlib.Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; change that, not this. -->"


def reasons() -> str:
    """Return the page of reasons."""
    rows = [(f"`{reason.name}`", *_parts(reason)) for reason in Reason]
    table = tabulate(rows, headers=("reason", "why the operation stays", "what to do"), tablefmt="github")
    text = (
        "Every operation that is not folded is in the report with one of these reasons. In the report, the words in\n"
        "braces are the layers, names and numbers of the case.\n"
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
        "carrier a `Carrier`, a linear map a `Linear`. Operations without a role let no affine pass."
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


# What users import, and what the functions give them; the order is that of the page.
FUNCTIONS = (
    *("api.fx_fuse", "api.explain", "api.lower", "api.optimize", "frontends.verify.verify", "api.fuse_graph"),
    *("frontends.fuse_pass.FusePass", "frontends.conv_bn.fuse_conv_bn", "operators.register.register"),
    "report.errors.FuseError",
)
RESULTS = (
    *("report.report.Report", "report.report.Decision", "report.cost.Cost", "report.reasons.Reason"),
    *("lowering.module.LoweredModule", "lowering.report.LoweringReport", "lowering.report.Lowered"),
    *("frontends.verify.Verification", "frontends.verify.Comparison"),
)
BACKEND = "frontends.backend.fxfuse"


def reference() -> str:
    """Return the page of the public functions, classes and commands."""
    import griffe  # noqa: PLC0415 - the other pages do without

    package = griffe.load("fxfuse", search_paths=[HERE.parent])
    parts = [NOTE, "# Reference", "Everything that `import fxfuse` and the command `fxfuse` offer."]
    parts += ["## Functions", *(_documented(package, path) for path in FUNCTIONS)]
    parts += ['### torch.compile(backend="fxfuse")', *_sections(package[BACKEND])]
    parts += ["## Results", *(_documented(package, path) for path in RESULTS)]
    return "\n\n".join([*parts, "## Commands", *_commands()]) + "\n"


def _documented(package: griffe.Module, path: str) -> str:
    """Return the part about a function or a class, with the public members of the class."""
    found = package[path]
    title = f"### {'fxfuse.' + found.name if found.name in fxfuse.__all__ else found.path}"
    if not found.is_class:
        return "\n\n".join([title, _code(found.signature()), *_sections(found)])
    members = [m for m in found.members.values() if m.docstring and not m.name.startswith("_")]
    lines = [f"- `{_called(m)}`: {_plain(m.docstring.value.splitlines()[0])}" for m in members]
    initialised = next((m for m in found.members.values() if m.name == "__init__" and m.docstring), None)
    signature = (
        [_code(initialised.signature().replace("__init__", found.name).removesuffix(" -> None"))] if initialised else []
    )
    arguments = list(_sections(initialised))[1:] if initialised else []
    return "\n\n".join(
        [title, *signature, *_sections(found), *arguments, *(["*Members*", "\n".join(lines)] if lines else [])]
    )


def _called(member: griffe.Object) -> str:
    """Return how a member is written: a property by its name, a method with its arguments."""
    if not member.is_function:
        return member.name
    arguments = [p.name for p in member.parameters if p.name not in ("self", "cls")]
    return f"{member.name}({', '.join(arguments)})"


def _sections(found: griffe.Object) -> Iterator[str]:
    """Yield the parts of a docstring in Markdown."""
    for section in found.docstring.parse("google", warnings=False):
        kind, value = section.kind.value, section.value
        if kind == "text":
            yield _plain(value)
        elif kind == "admonition":
            yield _code(value.contents)
        else:
            rows = [f"- {_name(item, kind)}{_plain(' '.join(item.description.split()))}" for item in value]
            yield f"*{kind.capitalize()}*\n\n" + "\n".join(rows)


def _name(item: Any, kind: str) -> str:
    if kind == "raises":
        return f"`{item.annotation}`: "
    return "" if kind == "returns" else f"`{item.name}`: "


def _plain(text: str) -> str:
    """Return a text as Markdown: a docstring writes code with two backquotes, and two spaces after a sentence."""
    return text.replace("``", "`").replace(".  ", ". ")


def _code(text: str) -> str:
    """Return a block of code; a docstring's examples are run by the tests of the docstrings."""
    return f"```pycon\n{text}\n```" if text.startswith(">>>") else f"```py\n{_wrapped(text)}\n```"


def _wrapped(signature: str) -> str:
    """Return a signature with an argument in each line, if it is too long for one."""
    if len(signature) <= 88:
        return signature
    name, _, rest = signature.partition("(")
    arguments, _, returns = rest.rpartition(")")
    return f"{name}(\n" + textwrap.indent(",\n".join(re.split(r", (?![^\[]*\])", arguments)), "    ") + f",\n){returns}"


def _commands() -> Iterator[str]:
    """Yield the part about each command: what it is for, and a table of its arguments."""
    (commands,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    for name, parser in commands.choices.items():
        rows = [(f"`{_written_argument(a)}`", _expanded(a)) for a in parser._actions if a.dest != "help"]
        table = tabulate(rows, headers=("argument", "meaning"), tablefmt="github")
        yield f"### fxfuse {name}\n\nTo {helps[name]}.\n\n{table}"


def _written_argument(action: argparse.Action) -> str:
    metavar = str(action.metavar or "|".join(action.choices or ()))
    several = {"+": f"{metavar} ...", "*": f"[{metavar} ...]"}
    value = several.get(str(action.nargs), "" if action.nargs == 0 else metavar)
    return " ".join([*action.option_strings, *([value] if value else [])]).replace("|", "\\|")


def _expanded(action: argparse.Action) -> str:
    return str(action.help) % {"default": action.default}


if __name__ == "__main__":
    for page in (reasons, operators, reference):
        (HERE / f"{page.__name__}.md").write_text(page())
