"""Models of torchvision and timm in every form of graph: as many norms go, and the result is exact in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from tests.forms.exceptions import MODELS
from tests.zoo.forms import measured, obstacles, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

# Small models of different families; the number of norms that go.
TORCHVISION = {
    "efficientnet_b0": 49,
    "googlenet": 57,
    "mobilenet_v3_small": 34,
    "regnet_x_400mf": 71,
    "resnet18": 20,
    "shufflenet_v2_x0_5": 56,
}
TIMM = {
    "repvgg_a0": 61,
    "mobilevit_s": 50,
    "efficientvit_b0": 26,
    "ghostnet_050": 80,
    "mixnet_s": 49,
    "mobilenetv4_conv_small": 46,
}


def torchvision_model(name: str) -> nn.Module:
    """A model with random weights; nothing is downloaded."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    more = {"init_weights": False} if name == "googlenet" else {}
    model: nn.Module = models.get_model(name, weights=None, **more)
    return prepared(model)


def timm_model(name: str) -> nn.Module:
    """A model with random weights; nothing is downloaded."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False)
    return prepared(model)


def image(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64)


def assert_same_in_every_form(name: str, model: nn.Module, x: Tensor, folds: int) -> None:
    """Each form folds so many norms, but for known exceptions, and gives what the model gives."""
    with torch.no_grad():
        model(x)  # some keep what their first run computed
    found = measured(model, x)
    expected = {form: MODELS.get((name, form), (folds, ""))[0] for form in found}
    assert {form: one.folded for form, one in found.items()} == expected
    assert all(one.error <= 1e-12 for one in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    assert_same_in_every_form(name, torchvision_model(name), image(64), TORCHVISION[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    assert_same_in_every_form(name, timm_model(name), image(64), TIMM[name])


@pytest.mark.slow
@pytest.mark.parametrize(("make", "name"), [(torchvision_model, "densenet121"), (timm_model, "repvit_m0_9")])
def test_what_stays_is_told_in_the_same_words(make: Callable[[str], nn.Module], name: str) -> None:
    model, x = make(name), image(64)
    with torch.no_grad():
        model(x)
    told = obstacles(model, x)
    assert told["traced"]
    assert all(one == told["traced"] for one in told.values())
