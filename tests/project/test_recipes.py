"""Every recipe of the documentation runs, by itself, and quantization is no worse for a fold before it."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
from typing import Any

import pytest
import torch
from torch import nn

from fxfuse import fx_fuse
from tests.support.helpers import run, trained

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes.md"
# A heading, whatever stands below it, and a block whose fence names what it needs beside fxfuse.
RECIPE = re.compile(r"^## (.+?)\n(?:(?!## ).*\n)*?```python recipe ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
RECIPES = RECIPE.findall(PAGE.read_text())

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the packages that the recipes hand on to
    pytest.mark.filterwarnings("ignore::UserWarning:torchao"),
]


def need(package: str) -> None:
    """Skip where a package, or the name of the backend, is not there."""
    if package != "fxfuse:backend":
        pytest.importorskip(package)
    elif not importlib.metadata.entry_points(group="torch_dynamo_backends", name="fxfuse"):
        pytest.skip("fxfuse is not installed, so that torch cannot find its backend by its name")


def test_every_section_is_a_recipe_that_asserts_something() -> None:
    assert [heading for heading, _, _ in RECIPES] == re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert PAGE.read_text().count("```python") == len(RECIPES)
    assert [heading for heading, _, code in RECIPES if "assert" not in code] == []


@pytest.mark.parametrize(("needs", "code"), [recipe[1:] for recipe in RECIPES], ids=[recipe[0] for recipe in RECIPES])
def test_a_recipe_runs(needs: str, code: str) -> None:
    for package in needs.split():
        need(package)
    torch._dynamo.reset()
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})  # noqa: S102 - our own documentation
    torch._dynamo.reset()


def quantization() -> Any:
    """The function of the recipe."""
    need("torchao")
    (code,) = (code for heading, _, code in RECIPES if "quantization" in heading)
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(code.partition("\nmodel = ")[0], str(PAGE), "exec"), scope)  # noqa: S102 - our own documentation
    return scope["quantized"]


def network(*between: nn.Module) -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), *between, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)]
    return trained(nn.Sequential(*layers)).float()


def error(model: nn.Module, other: nn.Module, samples: torch.Tensor) -> float:
    expected, given = run(model, (samples,)), run(other, (samples,))
    return float((given - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("between", ["nothing", "another norm"])
def test_quantization_is_no_worse_after_a_fold(between: str) -> None:
    quantized = quantization()
    before = after = 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        model = network(*([nn.BatchNorm2d(8)] if between == "another norm" else []))
        samples, others = torch.randn(16, 3, 10, 10), torch.randn(16, 3, 10, 10)
        result = quantized(fx_fuse(model), samples)
        assert not any("batch_norm" in str(node.target) for node in result.graph.nodes)
        after += error(model, result, others) / 3
        before += error(model, quantized(model, samples), others) / 3
    assert 0 < after < 0.05
    assert after <= 1.05 * before  # the observers see other roundings, in both directions
