"""What must fit before constants meet the weights of a layer: their kind, their axes, and what is known of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fxfuse.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import Tensor, fx

    from fxfuse.affine import Affine
    from fxfuse.graph import Graph
    from fxfuse.operators.roles import AffineSource, Linear
    from fxfuse.shapes import Rank


def require_same_kind(graph: Graph, layer: Linear, tensor: Tensor, *, promotes: bool) -> None:
    """Refuse a tensor on another device than a layer, or of a dtype that would change that of its result."""
    weight = layer.weight
    if tensor.device != weight.device:
        name = graph.describe(layer.node)
        raise Refusal(Reason.MIXED_DEVICE, value=name, device=tensor.device, other=weight.device)
    if tensor.dtype == weight.dtype:
        return
    promoted = torch.promote_types(tensor.dtype, weight.dtype)
    same = promoted == weight.dtype or not promotes
    require(same, Reason.PROMOTES, detail=f"{weight.dtype} with {tensor.dtype} gives {promoted}")


def require_constants_of_same_kind(graph: Graph, layer: Linear, source: AffineSource) -> None:
    """Refuse a source whose constants are of another kind; numbers and tensors without axes promote nothing."""
    for tensor in source.tensors:
        require_same_kind(graph, layer, tensor, promotes=source.promotes and tensor.ndim > 0)


def along_channels(graph: Graph, affine: Affine, axis: int, channels: int, node: fx.Node) -> Affine:
    """Return an affine of the value of a node as two vectors along its channels."""
    vector = affine.vector(axis, channels)
    if vector is None:
        detail = f"{channels} channels on axis {axis}, shape {tuple(affine.scale.shape)}"
        raise Refusal(Reason.NOT_PER_CHANNEL, value=graph.describe(node), detail=detail)
    return vector


def unproven_rank(graph: Graph, affine: Affine, axis: int, node: fx.Node) -> Rank | None:
    """Return the number of axes of a value, if an affine would enlarge a value of fewer, and that is not proven.

    A constant with more axes than the value would give the result more axes as well, and is refused.
    """
    if affine.rank <= -axis:
        return None
    rank, name = graph.rank(node), graph.describe(node)
    if rank is None:
        raise Refusal(Reason.UNKNOWN_SHAPE, value=name, detail="not known")
    detail = f"it has {affine.rank} axes, the value {rank.axes}"
    require(affine.rank <= rank.axes, Reason.NOT_PER_CHANNEL, value=name, detail=detail)
    return None if rank.proven else rank


def require_may_assume(graph: Graph, rank: Rank, value: fx.Node) -> None:
    """Refuse a number of axes that is only usual, where no check may be left."""
    allowed = graph.guards or not rank.assumed
    detail = "only usual, and guards=False asks for a proof"
    require(allowed, Reason.UNKNOWN_SHAPE, value=graph.describe(value), detail=detail)
