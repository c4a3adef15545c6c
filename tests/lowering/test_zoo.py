"""Whole networks: lowered they give what the fused ones give, at other batches and sizes too, without a fallback."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxfuse import fx_fuse, lower
from fxfuse.cli import models

from .models import gap

SMALL = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
LARGE = (
    *("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "densenet121", "regnet_y_400mf", "vgg11_bn"),
    *("convnext_tiny", "vit_b_16", "swin_t", "googlenet", "mnasnet1_0", "resnext50_32x4d", "inception_v3"),
    *(
        "timm:repvgg_a0",
        "timm:resnet18d",
        "timm:ghostnet_100",
        "timm:regnetz_005",
        "timm:mixnet_s",
        "timm:hrnet_w18_small",
    ),
    *(
        "timm:res2net50_14w_8s",
        "timm:skresnet18",
        "timm:dla34",
        "timm:nfnet_l0",
        "timm:cspresnet50",
    ),
    *("timm:mobileone_s0", "timm:fastvit_t8", "timm:repvit_m0_9", "timm:convnext_atto"),
    *("timm:edgenext_xx_small", "timm:coat_lite_tiny", "timm:resnetv2_50"),
)


def check(name: str) -> None:
    pytest.importorskip("torchvision")
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = models.build(name, models.find(name)).float().eval()
    models.randomize(model)
    fused: Any = fx_fuse(model)
    assert isinstance(fused, torch.fx.GraphModule)
    size = models.input_size(model)
    fast = lower(fused, torch.randn(1, *size))
    for shape in ((1, *size), (2, *size)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert gap(fast(x), fused(x)) < 1e-4
    assert fast.fallbacks == 0


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_networks(name: str) -> None:
    check(name)
