"""``fuse_conv_bn``: one layer and one norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from fxfuse import fuse_conv_bn
from tests.support.helpers import assert_same, trained, unchanged, values
from tests.support.samples import error_of

CONVOLUTIONS: dict[int, tuple[type[nn.Module], type[nn.Module]]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
NORMS: dict[int, tuple[type[nn.Module], type[nn.Module]]] = {
    1: (nn.BatchNorm1d, nn.InstanceNorm1d),
    2: (nn.BatchNorm2d, nn.InstanceNorm2d),
    3: (nn.BatchNorm3d, nn.InstanceNorm3d),
}
LAYERS: list[dict[str, Any]] = [
    {},
    {"bias": False, "stride": 2, "padding": 1},
    {"groups": 2, "dilation": 2},
    {"groups": 4, "out_channels": 8, "bias": False},
]


def make_norm(kind: str, dims: int, channels: int) -> nn.Module:
    if kind == "SyncBatchNorm":
        return nn.SyncBatchNorm(channels)
    options: dict[str, Any] = {"affine": kind != "plain"}
    if kind == "InstanceNorm":
        return NORMS[dims][1](channels, affine=True, track_running_stats=True)
    if kind == "eps":
        options = {"eps": 0.3, "momentum": None}
    return NORMS[dims][0](channels, **options)


@pytest.mark.parametrize("kind", ["BatchNorm", "plain", "eps", "SyncBatchNorm", "InstanceNorm"])
@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_layer_with_every_norm(dims: int, transposed: bool, options: dict[str, Any], kind: str) -> None:
    settings = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}
    conv = CONVOLUTIONS[dims][transposed](**settings)
    pair = trained(nn.Sequential(conv, make_norm(kind, dims, settings["out_channels"])))
    with unchanged(pair):
        fused = fuse_conv_bn(pair[0], pair[1])
    assert type(fused) is type(conv)
    assert fused.bias is not None
    assert_same(pair, fused, values(2, 4, *[7] * dims))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_a_linear_layer(norm: type[nn.Module], bias: bool) -> None:
    pair = trained(nn.Sequential(nn.Linear(4, 6, bias=bias), norm(6)))
    with unchanged(pair):
        fused = fuse_conv_bn(pair[0], pair[1])
    assert type(fused) is nn.Linear
    assert_same(pair, fused, values(5, 4))


def test_a_layer_without_a_batch_axis() -> None:
    pair = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)))
    assert_same(pair, fuse_conv_bn(pair[0], pair[1]), values(3, 6, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_of_the_layer_stays(dtype: torch.dtype) -> None:
    pair = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(dtype)
    fused = fuse_conv_bn(pair[0], pair[1]).state_dict()
    exact = fuse_conv_bn(pair[0].double(), pair[1].double()).state_dict()
    assert fused.keys() == exact.keys() == {"weight", "bias"}
    for name, tensor in fused.items():
        assert tensor.dtype is dtype
        assert torch.equal(tensor, exact[name].to(dtype))


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_new_layer_trains_if_the_old_one_did(requires_grad: bool) -> None:
    pair = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))).requires_grad_(requires_grad)
    fused = fuse_conv_bn(pair[0], pair[1])
    assert {p.requires_grad for p in fused.parameters()} == {requires_grad}


def test_memory_format_and_mode_stay() -> None:
    pair = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(memory_format=torch.channels_last)
    fused = fuse_conv_bn(pair[0].train(), pair[1])
    assert fused.state_dict()["weight"].is_contiguous(memory_format=torch.channels_last)
    assert fused.training


# -- what is refused


CONV = nn.Conv2d(3, 4, 3)
BAD: list[Any] = [
    pytest.param(CONV, nn.BatchNorm2d(4), "training mode", id="training"),
    pytest.param(CONV, nn.BatchNorm2d(4, track_running_stats=False).eval(), "statistics", id="no statistics"),
    pytest.param(CONV, nn.InstanceNorm2d(4).eval(), "statistics", id="instance norm"),
    pytest.param(CONV, nn.BatchNorm2d(6).eval(), "4 channels", id="channels"),
    pytest.param(nn.Conv1d(3, 4, 3), nn.BatchNorm2d(4).eval(), "channels", id="axes"),
    pytest.param(nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4).eval(), "", id="other axes"),
    pytest.param(nn.Linear(3, 4), nn.BatchNorm2d(4).eval(), "channels", id="linear and images"),
    pytest.param(CONV, nn.GroupNorm(2, 4), "GroupNorm", id="another norm"),
    pytest.param(nn.ReLU(), nn.BatchNorm2d(4).eval(), "ReLU", id="no layer"),
    pytest.param(nn.BatchNorm2d(4).eval(), CONV, "BatchNorm2d", id="swapped"),
    pytest.param(nn.Sequential(CONV), nn.BatchNorm2d(4).eval(), "fx_fuse", id="a block"),
    pytest.param(CONV, None, "NoneType", id="nothing"),
    pytest.param("conv", nn.BatchNorm2d(4).eval(), "str", id="a name"),
    pytest.param(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4).eval(), "ParametrizedConv2d", id="parametrized"),
    pytest.param(nn.Conv2d(3, 4, 3, device="meta"), nn.BatchNorm2d(4).eval(), "meta", id="meta"),
    pytest.param(nn.Conv2d(3, 4, 3, dtype=torch.complex64), nn.BatchNorm2d(4).eval(), "complex64", id="complex"),
]


@pytest.mark.parametrize(("conv", "bn", "words"), BAD)
def test_what_cannot_be_folded_is_said_in_a_sentence(conv: Any, bn: Any, words: str) -> None:
    sentence = error_of(lambda: fuse_conv_bn(conv, bn))
    assert words in sentence
    assert "othing was changed" in sentence
    assert sentence.rstrip().endswith(".")


def test_hooks_are_refused() -> None:
    conv, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    bn.register_forward_hook(lambda _module, _args, output: output)
    assert "hooks" in error_of(lambda: fuse_conv_bn(conv, bn))


def test_a_scale_that_overflows_is_refused() -> None:
    conv, bn = nn.Conv2d(3, 4, 3).half(), nn.BatchNorm2d(4, eps=0.0).eval()
    bn.running_var = torch.full((4,), 1e-14)
    assert "float16" in error_of(lambda: fuse_conv_bn(conv, bn))
