"""Models on which the pass is measured besides torchvision's: twenty of timm's, chains, and one of two gigabytes."""

# ruff: noqa: INP001 - imported by scripts

from __future__ import annotations

from torch import nn

TIMM = (
    "convnextv2_atto deit3_small_patch16_224 densenet121 dpn68 edgenext_xx_small efficientnet_lite0 ghostnet_100 "
    "hrnet_w18_small levit_128s lcnet_100 mixnet_s mobilenetv4_conv_small mobileone_s1 regnetx_002 repvgg_a0 "
    "res2net50_26w_4s resnetv2_50 rexnet_100 tf_efficientnet_b0 vit_tiny_patch16_224"
).split()


def chain(blocks: int) -> nn.Module:
    """Blocks of a convolution, a norm and an activation."""
    return _chain(blocks, channels=1)


def _chain(blocks: int, channels: int) -> nn.Module:
    layers = (
        nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()) for _ in range(blocks)
    )
    return nn.Sequential(*layers)


def chain_100() -> nn.Module:
    """A hundred blocks."""
    return chain(100)


def chain_1000() -> nn.Module:
    """A thousand blocks."""
    return chain(1000)


def chain_10000() -> nn.Module:
    """Ten thousand blocks."""
    return chain(10000)


def two_gigabytes() -> nn.Module:
    """Thirty layers of 67 MB each."""
    return _chain(30, channels=4096)


OWN = [f"{__name__}:{factory.__name__}" for factory in (chain_100, chain_1000, chain_10000, two_gigabytes)]
