"""One layer and one norm, without a graph: the classic ``fuse_conv_bn``."""

from __future__ import annotations

from typing import TypeVar

from torch import fx, nn

from fxfuse.edit.editor import Editor
from fxfuse.graph.graph import Graph
from fxfuse.graph.registry import operator_of
from fxfuse.operators.norms import BatchNorm
from fxfuse.operators.roles import Linear, View
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Refusal
from fxfuse.rules.fold_upstream import fold_upstream

M = TypeVar("M", bound=nn.Module)


def fuse_conv_bn(conv: M, bn: nn.Module) -> M:
    """Return a layer that does what ``bn(conv(x))`` does.

    Any convolution, transposed convolution or linear layer, with any norm that uses stored statistics.  Neither
    argument is changed.  The arithmetic is done in float64 and rounded once.  With ``factor`` for
    ``bn.weight / sqrt(bn.running_var + bn.eps)``, for each output channel: the new weight is ``factor * conv.weight``,
    the new bias ``factor * (conv.bias - bn.running_mean) + bn.bias``, by the definition of batch normalisation in
    evaluation mode (Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, algorithm 2).

    Example:
        >>> import torch
        >>> conv, bn = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8).eval()
        >>> fuse_conv_bn(conv, bn)
        Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))

    Args:
        conv: the layer, with ``n`` output channels.
        bn: the norm over ``n`` channels, in evaluation mode.  A ``BatchNorm1d`` is read for batched inputs:
            ``(N, C)`` after a linear layer, ``(N, C, L)`` after a convolution.

    Returns:
        A new layer of the same class, with a bias.

    Raises:
        FuseError: if the two cannot be folded, with the reason.
    """
    given: tuple[tuple[object, type[View], str], ...] = ((conv, Linear, "conv"), (bn, BatchNorm, "bn"))
    for module, role, name in given:
        row = operator_of(module) if isinstance(module, nn.Module) else None
        if row is None or not issubclass(row.view, role):
            raise FuseError(
                f"fuse_conv_bn takes a convolution or linear layer and a batch norm, and got {type(module).__name__} "
                f"as {name}; nothing was changed. For blocks and whole models use fx_fuse."
            )
    graph = fx.Graph()
    value = graph.call_module("conv", (graph.placeholder("input"),))
    graph.output(graph.call_module("bn", (value,)))
    editor = Editor(Graph(fx.GraphModule({"conv": conv, "bn": bn}, graph)))
    try:
        plan = fold_upstream(editor.graph, value.next)
    except Refusal as refusal:
        raise FuseError(f"bn cannot be folded into conv: {refusal}. Nothing was changed.") from refusal
    assert plan is not None  # noqa: S101 - bn is an affine source, as was checked
    editor.apply(plan)
    return editor.rewritten[value]  # type: ignore[return-value] # a shallow copy keeps the class
