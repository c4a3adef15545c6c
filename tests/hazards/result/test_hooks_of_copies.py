"""Hazard 30: hooks of the result know the modules of the result, and go on sharing what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, sequence
from tests.support.helpers import Model, Structure, folds, trained, values

if TYPE_CHECKING:
    from fxfuse.capture.hooks import Hooks

INPUTS = [values(2, 3, 6, 6), values(6, 3, 6, 6)]


class Net(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(x).relu()


def two() -> Any:
    return trained(nn.Sequential(Net(block=sequence()), Net(block=sequence())))


def test_a_hook_that_looks_its_module_up_finds_it(structure: Structure) -> None:
    model = two()
    names, seen = {module: name for name, module in model.named_modules()}, list[str]()
    model[0].register_forward_hook(lambda module, _args, _output: seen.append(names[module]))
    ways: list[tuple[Hooks, list[str]]] = [("keep", []), ("observe", ["0.block.1", "1.block.1"])]
    for hooks, folded in ways:
        fused = fx_fuse(model, structure=structure, hooks=hooks)
        seen.clear()
        assert_right(model, fused, INPUTS)
        assert seen == ["0"] * 2 * len(INPUTS)
        assert folds(fused) == folded


@pytest.mark.parametrize("used", [False, True])
def test_a_hook_that_notes_by_module_notes_in_the_dictionary_of_the_user(structure: Structure, used: bool) -> None:
    model = two()
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _args: Any, output: Tensor) -> None:
        found[module] = output

    for block in model:
        block.register_forward_hook(note)
    if used:
        model(INPUTS[0])
    fused = fx_fuse(model, structure=structure)
    found.clear()
    fused(INPUTS[0])
    assert len(found) == 2


@pytest.mark.parametrize("used", [False, True])
def test_hooks_that_share_a_dictionary(structure: Structure, used: bool) -> None:
    model = two()
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _args: Any, output: Tensor) -> None:
        found[module] = output

    model[0].register_forward_hook(note)
    model[1].register_forward_hook(lambda _module, _args, output: output + sum(found.values()))
    if used:
        model(INPUTS[0])
        found.clear()
    fused = fx_fuse(model, structure=structure)
    for x in INPUTS:
        found.clear()
        expected = model(x)
        found.clear()
        assert torch.allclose(expected, fused(x), rtol=1e-12, atol=1e-12)


def test_a_module_that_is_a_default_is_the_copy(structure: Structure) -> None:
    model = two()
    for block, factor in zip(model, (2.0, 3.0), strict=True):
        block.register_forward_hook(lambda m, _a, o, block=block, k=factor: o * k if block is m else o * 9)
        block.register_forward_hook(lambda m, _a, o, *, block=block: o * 2 if block is m else o * 9)
    fused = fx_fuse(model, structure=None if structure == "graph" else structure)
    assert_right(model, fused, INPUTS)


def test_a_hook_of_the_model_that_knows_the_model() -> None:
    model = two()

    def note(_module: Any, _args: Any, output: Any) -> None:
        model.last = output.shape

    model.register_forward_hook(note)
    fused: Any = fx_fuse(model)
    assert_right(model, fused, INPUTS)
    del model.last
    fused(INPUTS[0])
    assert fused.last == (2, 3, 6, 6)
    assert not hasattr(model, "last")


class Easy(dict[str, Any]):
    __getattr__ = dict.__getitem__


class ByAttribute(Model):
    def forward(self, x: Tensor) -> Any:
        return self.named.last(self.named.first(x))


def test_a_dictionary_of_modules_keeps_its_class(structure: Structure) -> None:
    blocks = {"first": sequence(), "last": sequence()}
    model: Any = ByAttribute(**blocks)
    model.named = Easy(blocks)
    assert_right(trained(model), fx_fuse(model, structure=structure), INPUTS)
