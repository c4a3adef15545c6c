"""A value that takes the place of several, each of which becomes a slice of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fxfuse.graph.plan import ValueSlice


def divide(graph: fx.Graph, whole: fx.Node, slices: Sequence[ValueSlice]) -> dict[fx.Node, fx.Node]:
    """Return new nodes that slice ``whole``, each with the node whose value it gives.

    ``whole`` gives all these values behind one another from now on.
    """
    axis, length = slices[0].axis, sum(one.length for one in slices)
    old = {key: value for key, value in whole.meta.items() if isinstance(value, Tensor)}
    whole.meta.pop("tensor_meta", None)
    with graph.inserting_after(whole):
        made = {_sliced(graph, whole, one): one.node for one in reversed(slices)}
    for new, node in made.items():
        new.meta = dict(node.meta)
    for key, value in old.items():  # the new size, in the fake mode of the graph
        sizes = list(value.shape)
        sizes[axis] = length
        whole.meta[key] = value.new_empty(sizes)
    return made


def _sliced(graph: fx.Graph, whole: fx.Node, one: ValueSlice) -> fx.Node:
    target: Any = whole.target
    if isinstance(target, torch._ops.OpOverload):
        bounds = (one.axis, one.start, one.start + one.length)
        return graph.call_function(torch.ops.aten.slice.Tensor, (whole, *bounds))
    return graph.call_function(torch.narrow, (whole, one.axis, one.start, one.length))
