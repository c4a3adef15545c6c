"""Models of timm, most of which cannot be traced as a whole: nothing foldable stays, nothing is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxfuse import Report, fx_fuse
from tests.zoo.checks import assert_all_is_well, trained32

timm = pytest.importorskip("timm")


def build(name: str) -> Any:
    """A model of timm with random weights; nothing is downloaded."""
    torch.manual_seed(0)
    return trained32(timm.create_model(name, pretrained=False))


# name, size of the image, norms that stay today
SMALL = [
    ("mobilevit_s", 128, 0),
    ("efficientvit_b0", 64, 0),
    ("skresnet18", 64, 0),
    ("repvgg_a0", 64, 0),
]
# What stays where the class is kept: public methods of these (forward_intermediates, as_sequential) list layers, and
# may hand out what is between two of them.
LARGER = [
    ("tiny_vit_5m_224", 224, 0),
    ("eca_nfnet_l0", 64, 0),
    ("hiera_tiny_224", 224, 0),
    ("nest_tiny_jx", 224, 0),
    ("levit_128s", 224, 0),
    ("dla34", 64, 2),
    ("hrnet_w18_small", 64, 2),
    ("regnety_002", 64, 0),
    ("efficientnet_lite0", 64, 2),
]


@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize(("name", "size", "stays"), SMALL)
def test_small_models(name: str, size: int, stays: int) -> None:
    assert_all_is_well(build(name), torch.randn(2, 3, size, size), stays, structures=("module",))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize(("name", "size", "stays"), LARGER)
def test_larger_models(name: str, size: int, stays: int) -> None:
    model, x = build(name), torch.randn(2, 3, size, size)
    model(x)  # tiny_vit keeps what its first run computed
    assert_all_is_well(model, x, stays, structures=("module",))


@pytest.mark.parametrize("name", ["mobilevit_s", "skresnet18"])
def test_a_model_keeps_its_methods(name: str) -> None:
    model, x = build(name), torch.randn(1, 3, 128, 128)
    fused: Any = fx_fuse(model, structure="module")
    assert Report.of(fused).folded
    with torch.no_grad():
        expected, given = model.forward_features(x), fused.forward_features(x)
    assert torch.allclose(expected, given, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert fused.num_classes == model.num_classes
