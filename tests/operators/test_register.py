"""``register``: what is no row is told before it does harm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError
from fxfuse import register as typed_register
from fxfuse.extend import Identity
from fxfuse.graph.registry import OPERATORS

register: Any = typed_register


class Tap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modules": "Tap"}, "modules='Tap' is no list; nothing was registered. Pass modules=['Tap']"),
        ({"modules": ["Tap"]}, "'Tap' in modules is no class of modules"),
        ({"modules": [Tap()]}, "Tap() in modules is no class of modules"),
        ({"modules": Tap}, "is no list"),
        ({"modules": [torch.relu]}, "in modules is no class of modules"),
        ({"functions": ["relu"]}, "'relu' in functions is no function"),
        ({"functions": [Tap]}, "in functions is no function"),
        ({"methods": [torch.relu]}, "in methods is no name of a method"),
        ({"modules": [Tap], "arguments": "x"}, "arguments='x' is no list"),
        ({"modules": [Tap], "arguments": [3]}, "3 in arguments is no name of an argument"),
        (
            {"modules": [Tap], "view": 3},
            "view=3 is no role; pass a subclass of Linear, AffineSource or Carrier, or None",
        ),
        ({"modules": [Tap], "view": Tap}, "is no role"),
        ({"modules": [Tap], "otherwise": "Identity"}, "otherwise='Identity' is no role"),
        ({"modules": [Tap], "shape": "equal"}, "shape='equal' is not known; it is one of 'same', 'same rank'"),
        ({"modules": [Tap], "arguments": []}, "arguments=[] must name the transformed value"),
        ({"modules": [Tap], "arguments": ["x", "x"]}, "each argument once"),
        ({"modules": [Tap], "tuples": "yes"}, "tuples='yes' is neither True nor False"),
        ({"modules": [Tap], "rank": "two"}, "rank='two' is not a number, or a function that gives one"),
        ({"modules": [Tap], "takes": 4}, "takes=4 is not a tuple of numbers"),
        ({"modules": [Tap], "spatial": "2"}, "spatial='2' is not a number of axes"),
        ({"modules": [Tap], "axes": ["dim"]}, "axes=['dim'] is not a text"),
        ({"modules": [Tap], "axes": "dim"}, "'dim' is none of the arguments ['input']"),
        ({"modules": [Tap], "like": "other"}, "'other' is none of the arguments ['input']"),
        ({"modules": [Tap], "size": 3}, "size is no fact; known are shape, result, rank"),
        ({"methods": ["tap it"]}, "'tap it' in methods is no name of a method"),
        ({}, "it has no targets; pass modules, functions or methods"),
        ({"functions": [torch.relu]}, "has a row already, 'relu'; nothing was registered. Pass replace=True"),
    ],
)
@pytest.mark.usefixtures("restored_operators")
def test_what_is_no_row_is_told_and_changes_nothing(options: dict[str, Any], told: str) -> None:
    before = dict(OPERATORS)
    with pytest.raises(FuseError) as caught:
        register("tap", **{"view": Identity, **options})
    assert told in str(caught.value)
    assert "nothing was registered" in str(caught.value)
    assert before == OPERATORS


@pytest.mark.usefixtures("restored_operators")
def test_a_row_takes_the_place_of_another_if_that_is_asked_for() -> None:
    row = register("tap", Identity, functions=[torch.relu], modules=[Tap], replace=True)
    assert OPERATORS[torch.relu] is OPERATORS[Tap] is row
    assert register("tap", Identity, modules=[Tap], replace=True) is OPERATORS[Tap]


@pytest.mark.usefixtures("restored_operators")
def test_targets_may_come_from_a_generator() -> None:
    row = register("tap", Identity, modules=(kind for kind in [Tap]), arguments=iter(["input"]))
    assert OPERATORS[Tap] is row
    assert row.arguments == ("input",)


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(FuseError, match="the name must be a text"):
        register(5, Identity, modules=[Tap])
