"""The number of axes of a value: known from metadata, proven from the operations, or usual and assumed."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse.guards import require_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fxfuse.graph import Graph


# Where the shape of a value in a run on example inputs is kept, among the metadata of its node.
EXAMPLE_SHAPE = "fxfuse_example_shape"


class Rank(NamedTuple):
    """A number of axes.

    Attributes:
        axes: the number.
        assumed: it is only usual (inputs are batched).
        seen: it was seen on example inputs; another input may have another number.
    """

    axes: int
    assumed: bool = False
    seen: bool = False


def ranks(graph: Graph) -> dict[fx.Node, Rank]:
    """Return the number of axes of every value for which it is known or usual.

    What is proven goes first: forward from metadata and operations that fix it, and back from a norm that checks
    it to the convolution before.  Only then the rest is filled with what is usual: an image has a batch axis, the
    input of a linear layer is a batch of vectors.
    """
    return _Ranks(graph).all()


class _Ranks:
    """What is known of the axes of the values of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.modules = {node: graph.module(node) for node in self.nodes}
        self.known: dict[fx.Node, int] = {}

    def all(self) -> dict[fx.Node, Rank]:
        """Prove what can be proven, then fill in what is usual."""
        for sweep in (self.nodes, list(reversed(self.nodes)), self.nodes):
            for node in sweep:
                self._prove(node)
        proven = set(self.known)
        for node in self.nodes:
            shape = node.meta.get(EXAMPLE_SHAPE)
            self._set(node, None if shape is None else len(shape))
        seen = set(self.known) - proven
        for node in self.nodes:
            if node not in self.known:
                self._set(node, self._from_inputs(node) or _usual(self._called(node)))
        known = proven | seen
        return {node: Rank(axes, node not in known, node in seen) for node, axes in self.known.items()}

    def _set(self, node: fx.Node, axes: int | None) -> None:
        if axes is not None:
            self.known.setdefault(node, axes)

    def _prove(self, node: fx.Node) -> None:
        if node not in self.known:
            self._set(node, _recorded(node) or self._fixed(node) or self._from_inputs(node))
        first = node.args[0] if node.args else None
        if node in self.known and isinstance(first, fx.Node) and keeps_rank(self._called(node)):
            self._set(first, self.known[node])

    def _called(self, node: fx.Node) -> object:
        """Return the class of the module, the function, or the name of the method that a node calls."""
        module = self.modules[node]
        if module is not None:
            return type(module)
        return node.target if node.op in ("call_function", "call_method") else None

    def _fixed(self, node: fx.Node) -> int | None:
        """Return the number of axes where the operation alone says it."""
        called, module = self._called(node), self.modules[node]
        if node.op == "get_attr":
            return self.graph.tensor_rank(node)
        if isinstance(called, type):
            flatten = isinstance(module, nn.Flatten) and called is nn.Flatten
            return _flattened(module.start_dim, module.end_dim) if flatten else _checked(called)  # type: ignore[union-attr] # not None
        if called in (torch.mm, torch.addmm):
            return 2
        if called is require_rank:
            return node.args[1] if isinstance(node.args[1], int) else None
        return _reshaped(node) if called in (torch.flatten, "flatten", "view", "reshape") else None

    def _from_inputs(self, node: fx.Node) -> int | None:
        called = self._called(node)
        if keeps_rank(called):
            return next((self.known[i] for i in node.all_input_nodes[:1] if i in self.known), None)
        if called in _ARITHMETIC:
            axes = [self.known.get(i) for i in node.all_input_nodes]
            return max(a for a in axes if a is not None) if axes and None not in axes else None
        if called in (torch.cat, torch.concat):
            return next((self.known[i] for i in node.all_input_nodes if i in self.known), None)
        return None


def _recorded(node: fx.Node) -> int | None:
    shape = getattr(_description(node), "shape", None)
    return None if shape is None else len(shape)


def recorded_dtype(node: fx.Node) -> torch.dtype | None:
    """Return the dtype of a value, where the graph says it."""
    return getattr(_description(node), "dtype", None)


def _description(node: fx.Node) -> object:
    # Graphs of torch.export, of shape propagation, and of Dynamo.
    return next((node.meta[key] for key in ("val", "tensor_meta", "example_value") if key in node.meta), None)


def _reshaped(node: fx.Node) -> int | None:
    """Return the number of axes after ``flatten``, ``view`` or ``reshape``."""
    if node.target in (torch.flatten, "flatten"):
        start, end = (*node.args[1:], *(0, -1)[len(node.args) - 1 :])[:2]
        return _flattened(node.kwargs.get("start_dim", start), node.kwargs.get("end_dim", end))
    sizes: Sequence[object] = node.args[1:]
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    # A single node can be a size or a whole shape.
    return len(sizes) if len(sizes) > 1 else None


def _flattened(start: object, end: object) -> int | None:
    """Everything from ``start`` on becomes one axis."""
    return start + 1 if isinstance(start, int) and start >= 0 and end == -1 else None


@functools.cache
def _checked(called: type) -> int | None:
    return next((axes for cls, axes in _CHECKED.items() if issubclass(called, cls)), None)


@functools.cache
def keeps_rank(called: Any) -> bool:
    """Whether an operation gives a tensor with as many axes as its first input has."""
    if isinstance(called, type):
        return called.__module__.startswith("torch.nn.modules") and called.__name__.startswith(_KEEPING_MODULES)
    return called in _KEEPING


def _usual(called: object) -> int | None:
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
    *("half", "double", "detach", "clone", "softmax", require_rank),
])  # fmt: skip
_ARITHMETIC = frozenset([
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div),
    *("add", "sub", "mul", "div", "add_", "mul_", "sub_", "div_", operator.iadd, operator.imul),
])  # fmt: skip
GIVE_TENSORS = (_KEEPING | _ARITHMETIC | {torch.cat, torch.concat, torch.stack, torch.flatten, torch.mean}) | frozenset(
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
