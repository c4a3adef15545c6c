"""What tests of the three merges check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from fxfuse import Reason, Report, fx_fuse
from tests.rules.merge_cases import SUMS, Case, calls, kernels
from tests.support.graph_forms import FORMS
from tests.support.helpers import assert_equal, assert_same, unchanged, values

if TYPE_CHECKING:
    from tests.support.helpers import Structure


def assert_merges(case: Case, structure: Structure) -> None:
    """A model merges to what the case says is left, and gives the same for other batches."""
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


def assert_merges_in_every_form(case: Case) -> None:
    """A model in each form of graph merges to what the case says is left; it is exported once for all of them."""
    model, x = case.model(), values(*case.shape)
    expected, left = model(x).detach(), {}
    # Core ATen has no stack: it is a cat of values with a new axis, which is no sum of them here.
    stacks = "stack" in case.name and case in SUMS
    for name, form in FORMS.items():
        if not (stacks and name.startswith("core")):
            fused = form.fuse(model, (x,), **case.options)
            assert_equal(expected, fused.run(x))
            left[name] = calls(fused.graph_module)
    assert left == dict.fromkeys(left, case.left)


def assert_stays(case: Case, reason: Reason, words: str, structure: Structure) -> None:
    """A model does not merge, and is told why; it gives the same."""
    model, x = case.model(), values(*case.shape)
    with unchanged(model):
        fused = fx_fuse(model, x, structure=structure)
    assert_same(model, fused, x)
    assert kernels(fused, x) == case.left
    told = {decision.reason: decision.detail for decision in Report.of(fused).skipped}
    assert reason in told, str(Report.of(fused))
    assert words in told[reason]
