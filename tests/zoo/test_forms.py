"""Models of torchvision and timm in every form of graph: as many norms go, and the result is exact in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.forms.exceptions import MODELS
from tests.zoo.forms import measured, prepared

# One of each family; the number of norms that go.
TORCHVISION = {
    "alexnet": 0,
    "convnext_tiny": 0,
    "densenet121": 59,
    "efficientnet_b0": 49,
    "efficientnet_v2_s": 110,
    "googlenet": 57,
    "inception_v3": 94,
    "maxvit_t": 23,
    "mnasnet0_5": 52,
    "mobilenet_v2": 52,
    "mobilenet_v3_small": 34,
    "regnet_x_400mf": 71,
    "regnet_y_400mf": 53,
    "resnet18": 20,
    "resnext50_32x4d": 53,
    "shufflenet_v2_x0_5": 56,
    "squeezenet1_0": 0,
    "swin_t": 0,
    "vgg11_bn": 8,
    "vit_b_16": 0,
    "wide_resnet50_2": 53,
}
TIMM = {
    "resnet18": 20,
    "repvgg_a0": 44,
    "mobilevit_s": 32,
    "efficientvit_b0": 26,
    "skresnet18": 36,
    "eca_nfnet_l0": 0,
    "regnety_002": 44,
    "dla34": 37,
    "hrnet_w18_small": 91,
    "efficientnet_lite0": 49,
    "ghostnet_050": 80,
    "levit_128s": 4,
    "tiny_vit_5m_224": 27,
    "mobilenetv4_conv_small": 46,
    "fastvit_t8": 46,
    "repghostnet_050": 80,
    "resnest14d": 23,
    "cspresnet50": 55,
    "convmixer_768_32": 0,
    "mixnet_s": 15,
    "rexnet_100": 62,
    "xception41": 84,
}


def torchvision_model(name: str) -> nn.Module:
    """A model with random weights; nothing is downloaded."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
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
    size = 224 if name.startswith(("vit", "maxvit")) else 96 if name == "inception_v3" else 64
    assert_same_in_every_form(name, torchvision_model(name), image(size), TORCHVISION[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    size = 224 if name in ("levit_128s", "tiny_vit_5m_224") else 96 if name == "xception41" else 64
    assert_same_in_every_form(name, timm_model(name), image(size), TIMM[name])
