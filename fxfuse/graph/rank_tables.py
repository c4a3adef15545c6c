"""What operations do to the number of axes and the sizes of a value, by class, function and method."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse.modules.guards import require_rank

if TYPE_CHECKING:
    from collections.abc import Callable


@functools.cache
def checked_rank(called: type) -> int | None:
    """Return the number of axes that a class demands."""
    return next((axes for cls, axes in _CHECKED.items() if issubclass(called, cls)), None)


@functools.cache
def keeps_rank(called: Any) -> bool:
    """Whether an operation gives a tensor with as many axes as its first input has."""
    if isinstance(called, type):
        return called.__module__.startswith("torch.nn.modules") and called.__name__.startswith(_KEEPING_MODULES)
    return called in _KEEPING


@functools.cache
def keeps_size(called: Any) -> bool:
    """Whether an operation gives a tensor of the shape of its first input."""
    if isinstance(called, type):
        return keeps_rank(called) and called.__name__.startswith(_KEEPING_SIZES)
    return called in _KEEPING_SIZE_FUNCTIONS


def usual_rank(called: object) -> int | None:
    """Return the number of axes that the result of an operation usually has."""
    if isinstance(called, type):
        return next((axes for cls, axes in _USUAL_MODULES.items() if issubclass(called, cls)), None)
    return _USUAL_FUNCTIONS.get(called)


# A class that raises for any other number of axes: its name is a proof.
_CHECKED: dict[type, int] = {nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}

# Leading words of class names in torch.nn of which the output has as many axes as the input.
_KEEPING_MODULES = (
    *("Conv", "Linear", "BatchNorm", "SyncBatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm", "LocalResponseNorm"),
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool", "Upsample", "Identity", "Dropout"),
    *("AlphaDropout", "FeatureAlphaDropout", "ReLU", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU"),
    *("SiLU", "Mish", "Hardswish", "Hardsigmoid", "Hardtanh", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softmax"),
    *("LogSigmoid", "LogSoftmax", "Threshold", "ZeroPad", "ReflectionPad", "ReplicationPad", "ConstantPad"),
    *("CircularPad", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle"),
)
_KEEPING_SIZES = tuple(
    "BatchNorm SyncBatchNorm InstanceNorm GroupNorm LayerNorm Identity Dropout AlphaDropout FeatureAlphaDropout ReLU "
    "LeakyReLU PReLU ELU CELU SELU GELU SiLU Mish Hardswish Hardsigmoid Hardtanh Sigmoid Tanh Softplus Softmax".split()
)
_KEEPING_SIZE_FUNCTIONS = frozenset([
    *(F.batch_norm, F.layer_norm, F.dropout, F.relu, F.gelu, F.silu, torch.relu, torch.sigmoid, torch.tanh),
    *("relu", "sigmoid", "tanh", "contiguous", "clone"),
])  # fmt: skip
_KEEPING: frozenset[Callable[..., Tensor] | str] = frozenset([
    *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear),
    *(F.batch_norm, torch.batch_norm, F.instance_norm, F.group_norm, F.layer_norm, F.pad, F.interpolate),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.relu, F.relu6, F.leaky_relu, F.elu),
    *(F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.sigmoid, F.tanh, F.softplus, F.softmax),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp, torch.exp, torch.abs, torch.neg),
    *("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "exp", "abs", "neg", "contiguous", "float"),
    *("half", "double", "detach", "clone", "softmax", require_rank),
    *("narrow", torch.narrow, "roll", torch.roll),
    *("transpose", "swapaxes", "permute", torch.transpose, torch.swapaxes, torch.permute, torch.clone),
])  # fmt: skip
ARITHMETIC = frozenset([
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div),
    *("add", "sub", "mul", "div", "add_", "mul_", "sub_", "div_", operator.iadd, operator.imul),
])  # fmt: skip
GIVE_TENSORS = (_KEEPING | ARITHMETIC | {torch.cat, torch.concat, torch.stack, torch.flatten, torch.mean}) | frozenset(
    "view reshape flatten permute transpose mean unsqueeze squeeze expand repeat".split()
)
_USUAL_MODULES: dict[type, int] = {
    nn.Conv1d: 3,
    nn.Conv2d: 4,
    nn.Conv3d: 5,
    nn.Linear: 2,
    nn.ConvTranspose1d: 3,
    nn.ConvTranspose2d: 4,
    nn.ConvTranspose3d: 5,
}
_USUAL_FUNCTIONS: dict[object, int] = {
    F.conv1d: 3,
    F.conv2d: 4,
    F.conv3d: 5,
    F.linear: 2,
    F.conv_transpose1d: 3,
    F.conv_transpose2d: 4,
    F.conv_transpose3d: 5,
}
