"""How values lie in memory: which are laid out as layers leave them, and who can tell the difference."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fxfuse.graph.aliases import begins, may_alias, runs_user_code
from fxfuse.graph.rank_tables import keeps_size
from fxfuse.graph.registry import OPERATORS
from fxfuse.graph.uses import first_operand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fxfuse.graph.facts import Facts

_aten = torch.ops.aten
# What takes some strides alone, or tells what they are.
_TELLING_NAMES = frozenset(
    "view view_as view_as_complex as_strided as_strided_scatter stride is_contiguous storage_offset data_ptr resize_ "
    "set_".split()
)
_TELLS = (
    *_TELLING_NAMES,
    *(torch.as_strided, torch.as_strided_scatter, torch.view_as_complex, F.local_response_norm),
    *(_aten.view.default, _aten.view.dtype, _aten.as_strided.default, _aten.view_as_complex.default),
)
# Those, and what takes the two orders that images have, in which layers leave them, but no parts of larger values.
_TELLS_VIEWS = (*_TELLS, torch.cudnn_batch_norm, _aten.cudnn_batch_norm.default)


# How the names of operations begin whose results lie in the usual order, whatever they read.
_IN_ORDER = ("linear", "matmul", "bmm", "mm", "addmm", "contiguous", "scaled_dot_product")
# Layers that keep to the two orders that images have, as norms do.
_LAYERS = (
    "conv2d",
    "conv3d",
    "convolution",
    "convtranspose2d",
    "convtranspose3d",
    "conv_transpose2d",
    "conv_transpose3d",
    *_IN_ORDER,
)
_ELEMENTWISE = ("add", "iadd", "sub", "isub", "mul", "imul", "relu", "gelu", "silu", "sigmoid", "hardswish", "dropout")


_NORMS = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")


class Layout:
    """What is known of the layouts of the values of one graph, found out in one sweep when somebody asks.

    Folds and merges take nodes out and leave the answers for the others as they are.
    """

    def __init__(self, graph: Facts) -> None:
        """Know the values of ``graph``."""
        self.graph = graph
        self._dense: dict[fx.Node, bool] = {}
        self._sticklers: dict[bool, dict[fx.Node, fx.Node | None]] = {True: {}, False: {}}

    def is_dense(self, value: fx.Node, *, elementwise: bool) -> bool:
        """Whether a value lies in memory as what is computed from it: a layer made it, and what followed kept that.

        Args:
            value: the value.
            elementwise: what is computed keeps the order of the axes in memory, so that any new tensor will do.
        """
        if elementwise and self.graph.called(value) is not None and not may_alias(self.graph, value):
            return True
        if not self._dense:
            for node in self.graph.nodes:
                self._dense[node] = self._find_dense(node)
        return self._dense[value] if value in self._dense else self._find_dense(value)

    def _find_dense(self, node: fx.Node) -> bool:
        if begins(self.graph, node, _LAYERS):
            return True
        source = self.graph.source(node)
        first = first_operand(source)
        row = OPERATORS.get(source.target) if source is not node else None
        if first is not None and (keeps_size(self.graph.called(source)) or (row is not None and row.name in _NORMS)):
            return self._dense.get(first, False)
        # What is computed element by element of images in one of the two usual orders is in one of them too.
        operands = [o for o in node.all_input_nodes if o not in self.graph.constants]
        known = bool(operands) and begins(self.graph, node, _ELEMENTWISE)
        return known and all(self._dense.get(operand, False) for operand in operands)

    def first_stickler(self, value: fx.Node, *, made: bool = False) -> fx.Node | None:
        """Return a reader that can tell how a value lies in memory; what a whole model returns may lie as it likes.

        Args:
            value: the value.
            made: a layer will make it, and not a view of something else take its place.
        """
        known = self._sticklers[made]
        if not known:
            for node in reversed(self.graph.nodes):
                known[node] = self._find_stickler(node, made=made)
        return known[value] if value in known else self._find_stickler(value, made=made)

    def forget(self, node: fx.Node) -> None:
        """Take into account that a node is taken out, behind which nobody could tell what lies before it."""
        if begins(self.graph, node, _IN_ORDER):
            for known in self._sticklers.values():
                known.clear()

    def _find_stickler(self, value: fx.Node, *, made: bool) -> fx.Node | None:
        tells = _TELLS if made else _TELLS_VIEWS
        users = list(value.users)
        for user in users:
            leaves = user.op == "output" and bool(self.graph.prefix)  # code that is not traced reads it
            if leaves or user.target in tells or _asks_in_code(self.graph, user):
                return user
        behind = (self._sticklers[made].get(user) for user in users if not begins(self.graph, user, _IN_ORDER))
        return next((node for node in behind if node is not None), None)


def _asks_in_code(graph: Facts, node: fx.Node) -> bool:
    """Whether code of the user's that runs at a node has a name in it of what takes some strides alone."""
    module = graph.module(node)
    if isinstance(module, nn.LocalResponseNorm):
        return True
    if not runs_user_code(graph, node):
        return False
    if module is None:
        functions = [node.target]
    else:
        classes = {cls for inner in module.modules() for cls in type(inner).__mro__}
        own = (cls for cls in classes if not cls.__module__.startswith(("torch.nn.", "builtins")))
        functions = [member for cls in own for member in vars(cls).values() if callable(member)]
    codes = list(_codes(functions))
    return not codes or any(not _TELLING_NAMES.isdisjoint(code.co_names) for code in codes)


def _codes(functions: list[Any]) -> Iterator[CodeType]:
    """Yield the code of functions, and of all that they hold and call by name."""
    seen: set[object] = set()
    pending = list(functions)
    while pending:
        function = inspect.unwrap(pending.pop())
        if isinstance(function, type) or function in seen:
            continue
        seen.add(function)
        code = function if isinstance(function, CodeType) else getattr(function, "__code__", None)
        if code is None:
            continue
        yield code
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]
        known = getattr(function, "__globals__", {})
        called = (known.get(name) for name in code.co_names)
        pending += [f for f in called if isinstance(f, FunctionType) and not f.__module__.startswith("torch.")]
