"""Models of torchvision: nothing foldable stays, nothing is wrong, in both structures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fxfuse import Report, fx_fuse
from tests.zoo.checks import assert_all_is_well, count_norms, error, norms_left, trained32

models = pytest.importorskip("torchvision.models")

# In a densenet no exact fold can remove these: they follow a concatenation and are followed by an activation.
STAYS = {"densenet121": 62, "densenet161": 82, "densenet169": 86, "densenet201": 102}


def build(name: str, **options: Any) -> Any:
    """A model of torchvision with random weights; nothing is downloaded."""
    torch.manual_seed(0)
    if "weights_backbone" in options:
        return trained32(models.get_model(name, weights=None, **options))
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return trained32(models.get_model(name, weights=None, **more))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5"])
def test_small_classifiers(name: str) -> None:
    assert_all_is_well(build(name), torch.randn(2, 3, 64, 64), STAYS.get(name, 0))


def test_segmentation() -> None:
    model = build("fcn_resnet50", weights_backbone=None)
    assert_all_is_well(model, torch.randn(1, 3, 64, 64), 0)


def test_video() -> None:
    assert_all_is_well(build("r3d_18"), torch.randn(1, 3, 4, 32, 32), 0)


def test_detection() -> None:
    model = build("fasterrcnn_mobilenet_v3_large_320_fpn", weights_backbone=None)
    fused: Any = fx_fuse(model)
    assert type(fused) is type(model)
    assert len(Report.of(fused).folded) == count_norms(model)
    assert norms_left(fused, [torch.rand(3, 64, 64)]) == 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert error(model.backbone(x), fused.backbone(x)) <= 1e-5
        assert fused([x[0]])[0].keys() == model([x[0]])[0].keys()


def image(name: str) -> Tensor:
    """An input as small as the model takes."""
    size = 224 if name.startswith(("vit", "maxvit")) else 96 if name == "inception_v3" else 64
    return torch.randn(2, 3, size, size)


# One of each family, not the largest.
FAMILIES = (
    "alexnet convnext_tiny densenet169 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 "
    "mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_0 swin_t "
    "vgg11_bn vit_b_16"
).split()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_classifiers(name: str) -> None:
    assert_all_is_well(build(name), image(name), STAYS.get(name, 0))
