"""The number of axes of a value: known from metadata, proven from the operations, or usual and assumed."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Rank(NamedTuple):
    """A number of axes, and whether it is only assumed (inputs are batched)."""

    axes: int
    assumed: bool = False


def ranks(graph_module: fx.GraphModule) -> dict[fx.Node, Rank]:
    """Return the number of axes of every value for which it is known or usual.

    What is proven goes first: forward from metadata and operations that fix it, and back from a norm that checks
    it to the convolution before.  Only then the rest is filled with what is usual: an image has a batch axis, the
    input of a linear layer is a batch of vectors.
    """
    nodes = list(graph_module.graph.nodes)
    proven: dict[fx.Node, int] = {}
    for sweep in (nodes, list(reversed(nodes)), nodes):
        for node in sweep:
            _prove(graph_module, node, proven)
    usual = dict(proven)
    for node in nodes:
        if node not in usual:
            axes = _from_inputs(graph_module, node, usual) or _usual(graph_module, node)
            if axes is not None:
                usual[node] = axes
    return {node: Rank(axes, assumed=node not in proven) for node, axes in usual.items()}


def _prove(graph_module: fx.GraphModule, node: fx.Node, proven: dict[fx.Node, int]) -> None:
    axes = _recorded(node) or _fixed(graph_module, node) or _from_inputs(graph_module, node, proven)
    if axes is not None:
        proven.setdefault(node, axes)
    first = node.args[0] if node.args else None
    if node in proven and isinstance(first, fx.Node) and _keeps_rank(graph_module, node):
        proven.setdefault(first, proven[node])


def _recorded(node: fx.Node) -> int | None:
    value = node.meta.get("val", node.meta.get("tensor_meta"))
    shape = getattr(value, "shape", None)
    return None if shape is None else len(shape)


def _called(graph_module: fx.GraphModule, node: fx.Node) -> object:
    """Return the class of the module, the function, or the name of the method that a node calls."""
    if node.op == "call_module":
        return type(graph_module.get_submodule(str(node.target)))
    return node.target if node.op in ("call_function", "call_method") else None


def _fixed(graph_module: fx.GraphModule, node: fx.Node) -> int | None:
    """Return the number of axes where the operation alone says it."""
    called = _called(graph_module, node)
    if isinstance(called, type):
        checked = next((axes for cls, axes in _CHECKED.items() if issubclass(called, cls)), None)
        flat = called is nn.Flatten and _flattens_all(graph_module.get_submodule(str(node.target)))
        return 2 if flat else checked
    if called in (torch.flatten, "flatten"):
        start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
        end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)  # noqa: PLR2004
        return start + 1 if isinstance(start, int) and start >= 0 and end == -1 else None
    if called in ("view", "reshape"):
        sizes = node.args[1:]
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        # A single node can be a size or a whole shape.
        return len(sizes) if len(sizes) > 1 else None
    return None


def _flattens_all(module: nn.Module) -> bool:
    return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)


def _from_inputs(graph_module: fx.GraphModule, node: fx.Node, known: dict[fx.Node, int]) -> int | None:
    if _keeps_rank(graph_module, node):
        return next((known[i] for i in node.all_input_nodes[:1] if i in known), None)
    if _called(graph_module, node) in _ARITHMETIC:
        axes = [known.get(i) for i in node.all_input_nodes]
        return max(a for a in axes if a is not None) if axes and None not in axes else None
    if _called(graph_module, node) in (torch.cat, torch.concat):
        return next((known[i] for i in node.all_input_nodes if i in known), None)
    return None


def _keeps_rank(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    called = _called(graph_module, node)
    if isinstance(called, type):
        return called.__module__.startswith("torch.nn.modules") and called.__name__.startswith(_KEEPING_MODULES)
    return called in _KEEPING


def _usual(graph_module: fx.GraphModule, node: fx.Node) -> int | None:
    called = _called(graph_module, node)
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
_KEEPING: frozenset[Callable[..., Tensor] | str] = frozenset([
    *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear),
    *(F.batch_norm, torch.batch_norm, F.instance_norm, F.group_norm, F.layer_norm, F.pad, F.interpolate),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.relu, F.relu6, F.leaky_relu, F.elu),
    *(F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.sigmoid, F.tanh, F.softplus, F.softmax),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp, torch.exp, torch.abs, torch.neg),
    *("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "exp", "abs", "neg", "contiguous", "float"),
    *("half", "double", "detach", "clone", "softmax"),
])  # fmt: skip
_ARITHMETIC = frozenset([
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div),
    *("add", "sub", "mul", "div", "add_", "mul_", "sub_", "div_", operator.iadd, operator.imul),
])  # fmt: skip
_USUAL_MODULES: dict[type, int] = {
    **{nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.Linear: 2},
    **{nn.ConvTranspose1d: 3, nn.ConvTranspose2d: 4, nn.ConvTranspose3d: 5},
}
_USUAL_FUNCTIONS: dict[object, int] = {
    **{F.conv1d: 3, F.conv2d: 4, F.conv3d: 5, F.linear: 2},
    **{F.conv_transpose1d: 3, F.conv_transpose2d: 4, F.conv_transpose3d: 5},
}
