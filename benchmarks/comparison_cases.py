"""The cases of `comparison.py`: tiny models, each with one way in which a fold can be missed or go wrong."""

# ruff: noqa: INP001 - beside a script, and no package

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comparison_models as m
import torch
from comparison_models import CHANNELS, conv, norm
from torch import Tensor, nn

from fxfuse.cli import models

IMAGE = (2, CHANNELS, 8, 8)
Names = tuple[tuple[str, ...], ...]
Prepare = Callable[[Any, Tensor], nn.Module]


@dataclass(frozen=True)
class Case:
    """A model and the shape of its input.

    Attributes:
        name: the row of the table.
        build: makes the model, which is then put into evaluation mode.
        best: what exact algebra allows: `folded` if every norm, and every multiplication and addition of constants
            can go, `partly` if some can, `kept` if none.
        shape: of the input.
        besides: multiplications and additions that have to stay, such as the sum of a residual.
        names: the lists of names that an expert gives to `fuse_modules`.
        prepare: what is done to the model at last, when its norms have their numbers.
        dtype: of model and input, where it is part of the case.
        needs: the package that the model is built from.
    """

    name: str
    build: Callable[[], nn.Module]
    best: str = "folded"
    shape: tuple[int, ...] = IMAGE
    besides: int = 0
    names: Names = ()
    prepare: Prepare = lambda model, _: model
    dtype: torch.dtype | None = None
    needs: str | None = None

    def make(self, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        """The model with its numbers, which are the same every time, and an input."""
        torch.manual_seed(0)
        dtype = self.dtype or dtype
        model = self.build().eval()
        for layer in model.modules():
            if hasattr(layer, "eps"):
                _move_far({**layer._parameters, **layer._buffers})
        x = torch.randn(self.shape, dtype=torch.float64).to(dtype)
        return self.prepare(model.to(dtype), x), x


def _move_far(numbers: dict[str, Any]) -> None:
    """Give a norm numbers far from the identity: every other scale is negative, no shift is near zero."""
    ranges = {"running_mean": (0.5, 1.0), "running_var": (0.2, 4.0), "weight": (0.5, 2.0), "bias": (1.0, 3.0)}
    for name, (low, width) in ranges.items():
        value = numbers.get(name)
        if value is not None and value.dim() == 1:
            signs = 1 - 2 * (torch.arange(len(value)) % 2) if name in {"running_mean", "weight"} else 1
            with torch.no_grad():
                value.copy_((low + width * torch.rand(len(value))) * signs)


def _training(model: Any, _: Tensor) -> nn.Module:
    model[4].train()
    return model


def _hook(index: int) -> Prepare:
    """A hook that changes what the layer returns."""

    def prepare(model: Any, _: Tensor) -> nn.Module:
        model[index].register_forward_hook(lambda _module, _arguments, output: output * 2)
        return model

    return prepare


def _weight_norm(model: Any, _: Tensor) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def _exported(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,)).module()


def _decomposed(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,)).run_decompositions().module()


def _frozen() -> nn.Module:
    return nn.Sequential(conv(), models.need("torchvision.ops").FrozenBatchNorm2d(CHANNELS), nn.ReLU())


def _norm_act() -> nn.Module:
    return nn.Sequential(conv(), models.need("timm.layers").BatchNormAct2d(CHANNELS))


def _standardized() -> nn.Module:
    return nn.Sequential(models.need("timm.layers").StdConv2d(CHANNELS, CHANNELS, 3), norm())


def _timm_repvgg() -> nn.Module:
    return nn.Sequential(models.need("timm.models.byobnet").RepVggBlock(CHANNELS, CHANNELS))


def _row(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Layers one behind the other, made anew each time."""
    return lambda: nn.Sequential(*(layer() for layer in layers))


def _of(make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: make(*arguments, **options)


relu = nn.ReLU
linear = _of(nn.Linear, CHANNELS, CHANNELS)
transposed = _of(nn.ConvTranspose2d, CHANNELS, CHANNELS, 3)
in_groups = _of(nn.ConvTranspose2d, CHANNELS, CHANNELS, 3, groups=2)
conv_1d = _of(nn.Conv1d, CHANNELS, CHANNELS, 3)
conv_3d = _of(nn.Conv3d, CHANNELS, CHANNELS, 2)
norm_1d = _of(nn.BatchNorm1d, CHANNELS)
norm_3d = _of(nn.BatchNorm3d, CHANNELS)
no_statistics = _of(nn.BatchNorm2d, CHANNELS, track_running_stats=False)
two = _row(conv, norm, relu, conv, norm)
pooled = _row(conv, _of(nn.AdaptiveAvgPool2d, 1), nn.Flatten, norm_1d)
first: Names = (("0", "1"),)
named: Names = (("conv", "norm"),)

CASES = (
    Case("conv, norm", _row(conv, norm, relu), names=first),
    Case("conv in groups, norm", _row(_of(conv, stride=2, dilation=2, groups=3, bias=False), norm), names=first),
    Case("conv, padding_mode circular, norm", _row(_of(conv, padding=1, padding_mode="circular"), norm), names=first),
    Case("conv, norm without affine", _row(conv, _of(nn.BatchNorm2d, CHANNELS, affine=False)), names=first),
    Case("conv, norm, float16", _row(conv, norm, relu), names=first, dtype=torch.float16),
    Case("conv with weight norm, norm", _row(conv, norm), names=first, prepare=_weight_norm),
    Case("conv 1d, norm", _row(conv_1d, norm_1d), names=first, shape=(2, CHANNELS, 9)),
    Case("conv 3d, norm", _row(conv_3d, norm_3d), names=first, shape=(2, CHANNELS, 4, 4, 4)),
    Case("conv_transpose, norm", _row(transposed, norm), names=first),
    Case("conv_transpose in groups, norm", _row(in_groups, norm), names=first),
    Case("linear, norm", _row(linear, norm_1d), names=first, shape=(4, CHANNELS)),
    Case("linear of (N, C, L), norm of C", _row(linear, norm_1d), "kept", (2, CHANNELS, CHANNELS), names=first),
    Case("one norm of two in training mode", two, "partly", prepare=_training, names=(("0", "1"), ("3", "4"))),
    Case("norm without statistics", _row(conv, no_statistics), "kept", names=first),
    Case("conv, identity, dropout, norm", _row(conv, nn.Identity, nn.Dropout, norm), names=(("0", "3"),)),
    Case("conv, avg_pool, norm", _row(conv, _of(nn.AvgPool2d, 2), norm)),
    Case("conv, pool, flatten, norm 1d", pooled),
    Case("conv, pool, flatten, norm 1d, exported", pooled, prepare=_exported),
    Case("flatten, norm 1d, linear", _row(nn.Flatten, _of(nn.BatchNorm1d, 384), _of(nn.Linear, 384, 2))),
    Case("conv, relu, norm", _row(conv, relu, norm), "kept"),
    Case("conv, relu, norm, conv", _row(conv, relu, norm, conv)),
    Case("norm, conv", _row(norm, conv)),
    Case("norm, conv that pads zeros", _row(norm, _of(conv, padding=1)), "kept"),
    Case("layer norm, linear", _row(_of(nn.LayerNorm, CHANNELS), linear), shape=(2, 5, CHANNELS)),
    Case("conv called twice, a norm each", m.SharedConv, besides=2, names=named),
    Case("norm behind two convs", m.SharedNorm, besides=1, names=named),
    Case("conv and norm called twice", m.CalledTwice, names=named),
    Case("conv called once more, alone", m.CalledAlone, besides=2, names=named),
    Case("two convs, one weight", m.TiedWeight, besides=1, names=named),
    Case("output of conv read elsewhere", m.ReadTwice, "kept", besides=1, names=named),
    Case("output of conv read by two norms", m.TwoNormsOfOne, "kept", besides=1),
    Case("hook that changes conv's output", _row(conv, norm), besides=1, prepare=_hook(0), names=first),
    Case("hook that changes norm's output", _row(conv, norm), besides=1, prepare=_hook(1), names=first),
    Case("registered in another order", m.OtherOrder, names=(("first", "norm"),)),
    Case("registered side by side, relu between", m.ActivationBetween, "kept"),
    Case("registered conv first, called norm first", m.NormFirst),
    Case("norm that is not called", m.Unused),
    Case("subclass of norm with an activation", _row(conv, _of(m.NormWithActivation, CHANNELS))),
    Case("subclass of conv with an activation", _row(_of(m.ConvWithActivation, CHANNELS, CHANNELS, 3), norm), "kept"),
    Case("concatenation, norm", m.Concatenation),
    Case("sum of two convs, norm", m.SumOfTwo, besides=1),
    Case("conv + x, norm", m.Residual, besides=1),
    Case("block of RepVGG", m.RepVGG, besides=2, names=(("square.0", "square.1"), ("point.0", "point.1"))),
    Case("block of RepVGG, timm's", _timm_repvgg, besides=2, needs="timm"),
    Case("forward depends on data", m.DependsOnData, besides=1, names=(("block.0", "block.1"),)),
    Case("conv, F.batch_norm", m.FunctionalNorm),
    Case("F.conv2d, F.batch_norm", m.Functional),
    Case("conv * scale + shift", m.Constants),
    Case("layer scale", m.LayerScale, besides=1, shape=(2, 5, CHANNELS)),
    Case("conv, FrozenBatchNorm2d (torchvision)", _frozen, needs="torchvision"),
    Case("conv, BatchNormAct2d (timm)", _norm_act, needs="timm"),
    Case("StdConv2d (timm), norm", _standardized, needs="timm"),
    Case("graph of torch.export", _row(conv, norm, relu), prepare=_exported),
    Case("graph of torch.export, decomposed", _row(conv, norm, relu), prepare=_decomposed),
)  # fmt: skip
