"""What a node reads, and whether it sees values at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxfuse.modules.guards import require_rank


def uses(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node reads, once for each time it reads them: ``cat([y, y])`` reads y twice."""
    seen = node.args[:1] if node.target in _SHAPED_LIKE and node.op != "placeholder" else node.args
    return nodes_in(seen, node.kwargs)


def first_operand(node: fx.Node) -> fx.Node | None:
    """Return the value that a node transforms: what is passed first, or as ``input``."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def nodes_in(*arguments: Any) -> list[fx.Node]:
    """Return the nodes among some arguments, and in the lists and dictionaries among them."""
    found: list[fx.Node] = []
    pending: list[Any] = list(arguments)
    while pending:
        item = pending.pop()
        if isinstance(item, fx.Node):
            found.append(item)
        elif isinstance(item, slice):
            pending += [item.start, item.stop, item.step]
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (tuple, list)):
            pending += item
    return found


# Methods that ask their second argument for its shape alone.
_SHAPED_LIKE = frozenset([
    *("reshape_as", "view_as", "expand_as"),
    *(torch.ops.aten.reshape_as.default, torch.ops.aten.view_as.default, torch.ops.aten.expand_as.default),
])  # fmt: skip


_SHAPE_METHODS = frozenset(
    "size dim ndimension numel get_device new_zeros new_ones new_empty new_full is_floating_point".split()
)
_aten = torch.ops.aten
_SHAPE_FUNCTIONS = frozenset([
    *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.numel, _aten.sym_size.int, _aten.sym_numel.default),
    *(_aten.new_zeros.default, _aten.new_ones.default, _aten.new_empty.default, _aten.new_full.default),
    _aten._assert_tensor_metadata.default,
    *(_aten.zeros_like.default, _aten.ones_like.default, _aten.empty_like.default),
])  # fmt: skip


def asks_shape(node: fx.Node) -> bool:
    """Whether a node sees no values, only shape, dtype or device: an affine leaves the answer alone."""
    if node.target is require_rank and not node.users:
        return True
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    if node.target in _SHAPE_FUNCTIONS:
        return True
    attribute = node.args[1] if node.op == "call_function" and node.target is getattr else None
    return attribute in ("shape", "ndim", "dtype", "device", "is_cuda")


def asks_rank(node: fx.Node) -> bool:
    """Whether a node only sees how many axes a value has."""
    if node.target is require_rank:
        return not node.users
    if node.op == "call_method":
        return node.target in ("dim", "ndimension")
    return bool(node.op == "call_function" and node.target is getattr and node.args[1] == "ndim")
