"""What each rule does to a graph, as text, in every form: the files in ``before_and_after`` are read by people.

``python -m tests.forms.test_before_and_after`` writes them anew; the difference is for a reviewer to see.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx

from tests.forms.rule_models import MODELS
from tests.forms.versions import BEFORE_2_14
from tests.support.graph_forms import FORMS
from tests.support.graph_reading import live, name_of
from tests.support.helpers import assert_equal, run, values

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = Path(__file__).parent / "before_and_after"


@functools.cache
def model_of(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    return make(), values(*shape)


def text_of(graph_module: fx.GraphModule) -> str:
    """A line for each operation by which the output is computed, with constants where they are read.

    Names of values and of inputs differ from one torch to the next, so that they are made anew.
    """
    names: dict[fx.Node, Name] = {}
    lines: list[str] = []
    for node in live(graph_module):
        passed = fx.node.map_arg((node.args, node.kwargs), names.__getitem__)
        arguments = ", ".join([*map(str, passed[0]), *(f"{name}={value}" for name, value in passed[1].items())])
        if node.op == "get_attr":
            names[node] = Name(f"self.{node.target}")
        elif node.op == "placeholder":
            names[node] = Name(re.sub(r"^l_(self|fn|args|stack)_|modules_|_$", "", node.name))
        elif node.op == "output":
            lines.append(f"return {arguments}")
        else:
            names[node] = Name(f"v{len(lines)}")
            called = f"self.{node.target}" if node.op == "call_module" else name_of(node)
            lines.append(f"{names[node]} = {called}({arguments})")
    return "\n".join(lines)


class Name(str):
    """A name, which lists and tuples print without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def written(name: str) -> str:
    """What a model becomes in every form: the graph without any rule, and with all of them."""
    model, x = model_of(name)
    parts = []
    for form in FORMS.values():
        before = form.fuse(model, (x,), rules=[])
        after = form.fuse(model, (x,))
        assert_equal(run(model, (x,)), after.run(x))
        parts.append(f"# {form.name}: before\n{text_of(before.graph_module)}\n")
        parts.append(f"# {form.name}: after\n{text_of(after.graph_module)}\n")
    return "\n".join(parts)


# Before torch 2.14 dropout is decomposed to a clone, which stays where the norm behind it went.
OLDER = {"dropped": "dropped_before_2_14"}


def text_file(name: str) -> Path:
    """Where the text of a model is stored, for the torch that runs."""
    return FOLDER / f"{OLDER.get(name, name) if BEFORE_2_14 else name}.txt"


@pytest.mark.parametrize("name", MODELS)
def test_a_rule_before_and_after(name: str) -> None:
    assert written(name) == text_file(name).read_text(encoding="utf-8")


def test_every_text_has_a_model() -> None:
    assert {path.stem for path in FOLDER.glob("*")} == {*MODELS, *OLDER.values()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for model_name in MODELS:
        text_file(model_name).write_text(written(model_name), encoding="utf-8")
