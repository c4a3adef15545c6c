"""How values lie in memory: which strides they have, and what depends on that."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from fxfuse.graph.aliases import may_alias, runs_user_code
from fxfuse.graph.registry import OPERATORS
from fxfuse.graph.uses import first_operand
from fxfuse.modules.origin import is_torchs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from fxfuse.graph.facts import Facts

_SPATIAL = 2  # the first axis that is none of the batch or the channels


class Layout:
    """The strides of the values of one graph, found out in one sweep when somebody asks.

    Folds and merges take nodes out and leave the answers for the others as they are.
    """

    def __init__(self, graph: Facts) -> None:
        """Know the values of ``graph``."""
        self.graph = graph
        self._dense: dict[fx.Node, bool] = {}
        # By whether a layer computes the value: the reader behind each value that depends on its strides.
        self._dependent: dict[bool, dict[fx.Node, fx.Node | None]] = {True: {}, False: {}}

    def is_dense(self, value: fx.Node, *, elementwise: bool) -> bool:
        """Whether a value is contiguous or channels_last, so that what is computed from it has the same strides.

        Args:
            value: the value.
            elementwise: the next operation keeps the order of axes in memory; then any tensor of its own will do.
        """
        computed = value.op in ("call_function", "call_method", "call_module")
        if elementwise and computed and not may_alias(self.graph, value):
            return True
        if not self._dense:
            for node in self.graph.nodes:
                self._dense[node] = self._find_dense(node)
        return self._dense[value] if value in self._dense else self._find_dense(value)

    def _find_dense(self, node: fx.Node) -> bool:
        source = self.graph.source(node)
        row, first = self.graph.row(source), first_operand(source)
        if row is None or row.strides is not None:
            return row is not None
        if row.shape == "same" and first is not None:
            return self._dense.get(first, False)
        # What is computed element by element of images in one of the two usual orders is in one of them too.
        operands = [o for o in node.all_input_nodes if o not in self.graph.constants]
        known = bool(operands) and row.shape == "broadcast"
        return known and all(self._dense.get(operand, False) for operand in operands)

    def stride_reader(self, value: fx.Node, *, by_layer: bool = False) -> fx.Node | None:
        """Return the first reader that depends on the strides of a value; a model may return any strides.

        Args:
            value: the value.
            by_layer: True if a layer computes the value; False if a view may replace it.
        """
        known = self._dependent[by_layer]
        if not known:
            for node in reversed(self.graph.nodes):
                known[node] = self._find_reader(node, by_layer=by_layer)
        return known[value] if value in known else self._find_reader(value, by_layer=by_layer)

    def forget(self, node: fx.Node) -> None:
        """Take into account that a node that set strides is taken out: its readers now see the strides before it."""
        if self._has_fixed_strides(node):
            for known in self._dependent.values():
                known.clear()

    def _has_fixed_strides(self, node: fx.Node) -> bool:
        row = self.graph.row(node)
        return row is not None and row.strides == "fixed"

    def _find_reader(self, value: fx.Node, *, by_layer: bool) -> fx.Node | None:
        asks = ("strides",) if by_layer else ("strides", "dense strides")
        users = list(value.users)
        for user in users:
            row = self.graph.row(user)
            leaves = user.op == "output" and bool(self.graph.prefix)  # code that is not traced reads it
            depends = row is not None and row.asks in asks and not self._is_one_pixel(value)
            if leaves or depends or self.asks_in_code(user):
                return user
        behind = (self._dependent[by_layer].get(user) for user in users if not self._has_fixed_strides(user))
        return next((node for node in behind if node is not None), None)

    def _is_one_pixel(self, value: fx.Node) -> bool:
        """Whether a value is an image of one pixel, which lies in memory in one way if it is dense."""
        rank, sizes = self.graph.rank(value), self.graph.sizes.all(value)
        spatial = range(_SPATIAL - rank.axes, 0) if rank is not None else range(0)
        return bool(spatial) and all(sizes.get(n) == 1 for n in spatial) and self.is_dense(value, elementwise=False)

    def asks_in_code(self, node: fx.Node) -> bool:
        """Whether the user's own code runs at a node, and names a method that depends on strides, or ``torch.ops``."""
        if not runs_user_code(self.graph, node):
            return False
        module = self.graph.module(node)
        if module is None:
            functions = [node.target]
        else:
            classes = {cls for inner in module.modules() for cls in type(inner).__mro__}
            own = (cls for cls in classes if not is_torchs(cls) and cls is not object)
            functions = [member for cls in own for member in vars(cls).values() if callable(member)]
        codes = list(_codes(functions))
        names = {name for code in codes for name in code.co_names}
        return not codes or "ops" in names or any(row.asks == "strides" for row in map(OPERATORS.get, names) if row)


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
        pending += [f for f in called if isinstance(f, FunctionType) and not is_torchs(f)]
