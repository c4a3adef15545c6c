"""Zeros that are padded before a convolution are padded by the convolution itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fxfuse.algebra.geometry import Misfit, fits
from fxfuse.graph.aliases import writer_between
from fxfuse.graph.plan import Plan
from fxfuse.operators.linear import Convolution
from fxfuse.operators.spatial import Pad
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.algebra.geometry import Geometry
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Write


def fold_padding(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv(pad(x))`` becomes ``conv(x)`` with more padding, where both pad zeros, and as many before as behind."""
    if not graph.plays(node, Pad):
        return None
    pad, readers = graph.view(node), graph.users(node)
    if not isinstance(pad, Pad) or not pad.zeros or not readers:
        return None
    writes = tuple(_padded(graph, reader, pad) for reader in readers)
    graph.require_changeable(node)
    unread = graph.layout.is_dense(pad.input, elementwise=False) or graph.layout.stride_reader(node) is None
    require(unread, Reason.LAYOUT, value=graph.describe(pad.input), users=graph.names(readers))
    writer = writer_between(graph, pad.input, node, set(readers))
    require(
        writer is None, Reason.MUTATED, value=graph.describe(pad.input), users=graph.names([writer] if writer else [])
    )
    return Plan(writes=writes, bypass=((node, pad.input),))


def _padded(graph: Graph, reader: fx.Node, pad: Pad) -> Write:
    """Return the edit that lets a convolution pad what ``pad`` does, and what it does now."""
    view = graph.view(reader)
    takes = isinstance(view, Convolution) and view.input is pad.node and graph.users(pad.node).count(reader) == 1
    require(takes, Reason.READ_BY, value=graph.describe(reader))
    assert isinstance(view, Convolution)  # noqa: S101 - it takes the padding
    graph.require_changeable(reader)
    # Code that is kept may ask a layer for its padding.
    require(not graph.keeps_code, Reason.OWN_FORWARD, value=graph.describe(reader))
    try:
        return view.with_geometry(_joined(view.geometry(), pad.sides()))
    except Misfit as misfit:
        raise Refusal(Reason.MISALIGNED, value=graph.names([pad.node, reader]), detail=misfit) from None


def _joined(geometry: Geometry, sides: list[tuple[int, int]]) -> Geometry:
    """Return a geometry with more padding.

    Args:
        geometry: that of the convolution.
        sides: what is padded before and behind, from the first axis to the last, perhaps with axes before the spatial.

    Raises:
        Misfit: if the convolution does not pad these axes, or pads something else than zeros.
    """
    axes = geometry.axes
    fits(bool(axes), "the layer has no axes along which it pads")
    fits(geometry.fixed is None, "a transposed convolution pads its result")
    fits(geometry.mode == "zeros" or not geometry.padded, "the layer pads no zeros")
    every = [(0, 0)] * len(axes) + sides
    fits(not any(map(any, every[: -len(axes)])), "other axes are padded than those of the kernel")
    pairs = zip(axes, every[-len(axes) :], strict=True)
    joined = tuple(replace(axis, before=axis.before + b, after=axis.after + a) for axis, (b, a) in pairs)
    return replace(geometry, axes=joined, mode="zeros")
