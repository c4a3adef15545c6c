"""A value that takes the place of several, each of which becomes a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fxfuse.graph.plan import Part


def divide(graph: fx.Graph, whole: fx.Node, parts: Sequence[Part]) -> dict[fx.Node, Part]:
    """Return nodes that take the parts of ``whole``, which gives all of them behind one another from now on."""
    axis, length = parts[0].axis, sum(part.length for part in parts)
    old = {key: value for key, value in whole.meta.items() if isinstance(value, Tensor)}
    whole.meta.pop("tensor_meta", None)
    with graph.inserting_after(whole):
        made = {_part(graph, whole, part): part for part in reversed(parts)}
    for node, part in made.items():
        node.meta = dict(part.node.meta)
    for key, value in old.items():  # what the graph says of the value, in the fake mode that it has
        sizes = list(value.shape)
        sizes[axis] = length
        whole.meta[key] = value.new_empty(sizes)
    return made


def _part(graph: fx.Graph, whole: fx.Node, part: Part) -> fx.Node:
    target: Any = whole.target
    if isinstance(target, torch._ops.OpOverload):
        bounds = (part.axis, part.start, part.start + part.length)
        return graph.call_function(torch.ops.aten.slice.Tensor, (whole, *bounds))
    return graph.call_function(torch.narrow, (whole, part.axis, part.start, part.length))
