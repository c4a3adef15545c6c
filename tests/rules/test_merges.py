"""Hazards 24, 25: what merges, in every graph form and in the user's own classes: exact, and nothing of it left."""

from __future__ import annotations

import pytest
from torch import nn

from fxfuse import Reason, Report, fx_fuse
from tests.rules.merge_cases import CHAINS, OF_MODULES, STACKS, SUMS, Case, calls, kernels
from tests.support.graph_forms import FORMS, Form
from tests.support.helpers import Structure, assert_equal, assert_same, unchanged, values

CASES = SUMS + CHAINS + STACKS


@pytest.mark.parametrize("case", CASES + OF_MODULES, ids=lambda case: case.name)
def test_merges(case: Case, structure: Structure) -> None:
    model, x = case.model(), values(*case.shape)
    with unchanged(model):
        fused = fx_fuse(model, x, structure=structure, **case.options)
    assert_same(model, fused, x)
    assert_layers_know_their_sizes(fused)
    assert {type(decision.assumed) for decision in Report.of(fused).folded} <= {bool}
    for size in (1, 3):
        assert_same(model, fused, values(size, *case.shape[1:]))
    if structure == "module" and Reason.OWN_FORWARD in Report.of(fused).by_reason():
        assert case.resizes, "a layer keeps its sizes, so that it can take the others in"
    else:
        assert kernels(fused, x) == case.left


def assert_layers_know_their_sizes(model: nn.Module) -> None:
    """What a layer notes of its weight, which it prints and pads by, is what torch would have noted."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert (layer.out_features, layer.in_features) == layer.weight.shape
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            first, second, *taps = layer.weight.shape
            sizes = (layer.in_channels, layer.out_channels)[:: 1 if layer.transposed else -1]
            assert (*sizes, *layer.kernel_size) == (first, second * layer.groups, *taps)
            if not layer.transposed and not isinstance(layer.padding, str):
                by_hand = [side for n in reversed(layer.padding) for side in (n, n)]
                assert list(layer._reversed_padding_repeated_twice) == by_hand


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_merges_in_every_form(case: Case, form: Form) -> None:
    if "stack" in case.name and case in SUMS and form.name.startswith("core"):
        pytest.skip("core ATen has no stack: it is a cat of values with a new axis, which is no sum of them here")
    model, x = case.model(), values(*case.shape)
    expected = model(x)
    fused = form.fuse(model, (x,), **case.options)
    assert_equal(expected.detach(), fused.run(x))
    assert calls(fused.graph_module) == case.left
