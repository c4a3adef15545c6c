"""What the rules see: a graph, read-only, with the constants, shapes and roles of its nodes."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from fxfuse.algebra.running_norms import RunningNorms
from fxfuse.graph.call import call_of, operator_at
from fxfuse.graph.constants import Constants
from fxfuse.graph.layout import Layout
from fxfuse.graph.nodes import PIECES, UNTRACED, Nodes
from fxfuse.graph.ranks import ranks
from fxfuse.graph.registry import tuple_row
from fxfuse.graph.sizes import Sizes
from fxfuse.graph.uses import Readers, asks_shape, mutated, uses
from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.lookup import fetch, is_hooked, owner_at
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from fxfuse.graph.call import Call
    from fxfuse.graph.facts import NodeView, Rank
    from fxfuse.graph.registry import Operator


class Graph(Nodes):
    """A captured graph, as the rules read it; only the editor changes it.

    Example:
        >>> from torch import fx, nn
        >>> from fxfuse.extend import Graph
        >>> graph = Graph(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))
        >>> [(node.name, graph.path(node), graph.operator(node).name) for node in graph.nodes[1:3]]
        [('_0', '0', 'conv2d'), ('_1', '1', 'relu')]
    """

    def __init__(  # noqa: PLR0913 - what was captured, and the options of the pass
        self,
        graph_module: fx.GraphModule,
        prefix: str = "",
        *,
        root: nn.Module | None = None,
        frozen: Mapping[nn.Module, Refusal] | None = None,
        holders: Mapping[int, Collection[str]] | None = None,
        allow_copies: bool = True,
        guards: bool = True,
        allow_growth: bool = False,
        keeps_code: bool = False,
    ) -> None:
        """Read ``graph_module``.

        Args:
            graph_module: what was captured; the pass changes it, so it must belong to the pass.
            prefix: the path of the captured module in the user's model.
            root: the module that was captured, to look up whose forward a node stands in.
            frozen: modules that must stay as they are, each with its refusal, for causes outside of this graph.
            holders: the paths in the whole model under which each parameter is registered, by its id.
            allow_copies: whether a shared weight may get a copy.
            guards: whether a fold may rest on a number of axes that is only usual, and leave a check.
            allow_growth: whether a merge may cost more multiply-adds than what it merges.
            keeps_code: whether the user's own forward goes on running, with all that it computes and does not use;
                else the graph takes its place.
        """
        super().__init__(graph_module, prefix)
        self.root = root
        self.frozen = frozen or {}
        self.allow_copies = allow_copies
        self.guards = guards
        self.allow_growth = allow_growth
        self.keeps_code = keeps_code
        self.constants = Constants(graph_module, self.module)
        self.running_norms = RunningNorms(self._modules.values())
        self._ranks = ranks(self)
        self.dead_ends: dict[fx.Node, Refusal] = {}  # values from which no walk upstream comes to an end, and why
        self._operators: dict[fx.Node, Operator | None] = {}
        self._views: dict[fx.Node, NodeView | None] = {}
        self._uses: dict[fx.Node, tuple[object, object, object, Counter[fx.Node]]] = {}
        self.readers = Readers(self, holders or {})
        self._dead = self.find_dead()

    @functools.cached_property
    def layout(self) -> Layout:
        """How values lie in memory."""
        return Layout(self)

    @functools.cached_property
    def sizes(self) -> Sizes:
        """The sizes of values."""
        return Sizes(self)

    def operator(self, node: fx.Node) -> Operator | None:
        """Return the row of the table for what a node calls, None for the unknown and for constants."""
        if node not in self._operators:
            traced = UNTRACED not in node.meta or PIECES in node.meta
            known = node not in self.constants and node not in self._values and traced
            row = operator_at(self.source(node), self.module(node)) if known else None
            # A tuple is no value; its first item stands for the call.
            self._operators[node] = row if row is None or row.tuples == (node in self._sources) else None
        return self._operators[node]

    def reread(self, node: fx.Node) -> None:
        """Take into account that a node calls something else now."""
        self._operators.pop(node, None)

    def changed(self) -> None:
        """Take into account that nodes read other values, or have other constants, than before."""
        self._views.clear()

    def taken_out(self, node: fx.Node) -> None:
        """Take into account that nobody reads a node any more."""
        if "layout" in self.__dict__:  # else nobody has asked for it yet
            self.layout.forget(node)

    def view(self, node: fx.Node) -> NodeView | None:
        """Return the node in its role, or None if it plays none that is known.

        Raises:
            Refusal: if its role is known, but hooks or other code forbid to rely on it.
        """
        if node not in self._views:
            row = self.operator(node)
            self._views[node] = None if row is None else _first_match(row, call_of(self, node, row))
        return self._views[node]

    def read(self, node: fx.Node) -> Call:
        """Return the call that a node of a known operator makes."""
        row = self.operator(node)
        if row is None:
            raise Refusal(Reason.NOT_LINEAR, value=self.path(node))
        return call_of(self, node, row)

    def plays(self, node: fx.Node, role: type[Any]) -> bool:
        """Whether a node may play a role, without reading its arguments."""
        row = self.operator(node)
        return row is not None and issubclass(row.view, role)

    def may_be(self, node: fx.Node, role: type[Any]) -> bool:
        """Whether a node may play a role, also where it does not match the first one of its row."""
        row = self.operator(node)
        return row is not None and any(issubclass(kind, role) for kind in row.views)

    def rank(self, node: fx.Node) -> Rank | None:
        """Return the number of axes of a value, if it is known or usual."""
        return self._ranks.get(node)

    def users(self, node: fx.Node) -> list[fx.Node]:
        """Return who uses the values of a node, once for each use; questions for its shape do not count."""
        found: list[fx.Node] = []
        for user in node.users:
            value = self._values.get(user, user)
            if value not in self._dead and not asks_shape(user):
                found += [value] * self._uses_of(user)[node]
        return found

    def _uses_of(self, node: fx.Node) -> Counter[fx.Node]:
        """Count ``uses(node)``, remembered as long as the node has the very same arguments, which never change."""
        target, args, kwargs, found = self._uses.get(node, (None, None, None, None))
        if found is None or node.args is not args or node.kwargs is not kwargs or node.target is not target:
            found = Counter(uses(node))
            self._uses[node] = (node.target, node.args, node.kwargs, found)
        return found

    @property
    def dead(self) -> Collection[fx.Node]:
        """Calls of known operators of which nobody used the result from the beginning, last first."""
        return self._dead.keys()

    def find_dead(self) -> dict[fx.Node, None]:
        """Return the calls that are dead now, the last first."""
        dead: dict[fx.Node, None] = {}
        for node in reversed(self.nodes):
            module, row = self.module(node), self.operator(node) or tuple_row(node)
            pure = row is not None and not self.mutated(node) and (module is None or _is_idle(module))
            if pure and all(user in dead for user in node.users):
                dead[node] = None
        return dead

    def tensor_rank(self, node: fx.Node) -> int | None:
        """Return the number of axes of what a node reads, or computes from parameters and buffers alone."""
        if node.op == "get_attr":
            value = fetch(self.graph_module, str(node.target))
            return value.ndim if isinstance(value, Tensor) else None
        try:
            return self.constants.value(node, name="weight", of=self.path(node)).ndim
        except Refusal:
            return None

    def mutated(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that a node changes in place."""
        return [] if self.constants.leaves_alone(node) else list(mutated(node, self.module(node)))

    def require_changeable(self, node: fx.Node) -> None:
        """Refuse to touch what code outside of this graph relies on."""
        module = self.module(node)
        root = self.root
        # A hook of the user's may compute a tensor of the module before each call.
        computing = root is not None and root._forward_pre_hooks and not isinstance(root, fx.GraphModule)
        if module is None and root is not None and (self.frozen or computing):
            module = owner_at(root, self.owner(node))
            known = not computing or module is not root or computes_weights(root)
            require(known, Reason.HOOKED, value=self.path(node))
        if module is not None and module in self.frozen:
            raise self.frozen[module]

    def with_constants(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """Return nodes, and the constants that only they read."""
        found = set(nodes)
        pending = list(found)
        while pending:
            for value in pending.pop().all_input_nodes:
                if value in self.constants and value not in found and found.issuperset(value.users):
                    found.add(value)
                    pending.append(value)
        return found


def _first_match(row: Operator, call: Call) -> NodeView | None:
    """Return a call in the first role of its row that it matches, None where it matches none."""
    return next((view for view in (kind(call) for kind in row.views) if view.matches()), None)


def _is_idle(module: nn.Module) -> bool:
    """Whether calling a module does nothing but compute a result."""
    return not module.training and not is_hooked(module)
