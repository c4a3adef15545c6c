"""The walk upstream: move an affine towards the input, until every path ends in a linear operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fxfuse.graph.aliases import first_writer
from fxfuse.graph.call import refusal_of
from fxfuse.graph.plan import Fold, Write
from fxfuse.modules.guards import require_rank
from fxfuse.operators.joins import Join
from fxfuse.operators.noops import Copy, Noop
from fxfuse.operators.passage import Passage
from fxfuse.operators.roles import AffineSource, Carrier, Linear
from fxfuse.operators.slices import Piece
from fxfuse.operators.splits import with_items
from fxfuse.report.errors import out_of_memory
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules.walk import Walk, unproven_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import fx

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.facts import NodeView
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


def fold_upstream(graph: Graph, node: fx.Node) -> Plan | None:
    """``conv -> bn`` becomes ``conv``, through anything that an affine can pass.

    Sources that follow each other directly are composed first, so that the weights are rounded once.
    """
    if not graph.plays(node, AffineSource):
        return None
    source = graph.view(node)
    if not isinstance(source, AffineSource) or not source.leaves_nothing:
        return None
    return _Upstream(graph, source).plan()


class _Step(NamedTuple):
    """Where an affine has come to."""

    value: fx.Node  # that it applies to
    reader: fx.Node  # the operation on the walk that reads the value
    affine: Affine
    ordered: bool  # a later copy makes the result contiguous, so that the strides of this value do not matter


class _Upstream(Walk):
    """One affine on its way up from the node that applies it.

    Attributes:
        behind: a value -> the value downstream from which the walk came to it.
        others: the other slices of a value of which every slice becomes the same affine.
    """

    def __init__(self, graph: Graph, source: AffineSource) -> None:
        """Start at ``source``."""
        super().__init__(graph, source)
        self.behind: dict[fx.Node, fx.Node] = {}
        self.others: set[fx.Node] = set()

    def plan(self) -> Fold:
        """Walk to the end of every path, and only then compute new weights."""
        source = self.sources[0]
        ends: dict[fx.Node, tuple[Linear, Affine]] = {}
        passed: list[tuple[Carrier, bool]] = []  # each with whether a later copy orders its result
        pending = [_Step(source.input, source.node, self.take(source), ordered=False)]
        while pending:
            step = pending.pop()
            value, reader, affine = step.value, step.reader, step.affine
            view = self._view(value)
            if isinstance(view, Linear):
                self._require_alone(value, reader)
                require(value not in ends, Reason.SEVERAL_USES, value=self.name(value), users=self.name(reader))
                ends[value] = view, affine
            elif isinstance(view, AffineSource):
                self._require_alone(value, reader)
                self.sources.append(view)
                pending += self._next(view, step, [(view.input, self._composed(affine, view))])
            elif isinstance(view, Carrier):
                self._require_no_more_axes(view, affine)
                if isinstance(view, Join):
                    self._look_ahead(view, value)
                pulled = self._pulled(view, affine)
                self.moved = self.moved or not _keeps_rank(view)
                passed.append((view, step.ordered))
                self._require_alone(value, reader)
                pending += self._next(view, step, pulled)
        ordered = any(source.gives_order for source in self.sources)
        if ordered or any(view.gives_view and not later for view, later in passed):
            self.require_strides_unused()
        if ordered or any(view.gives_view for view, _ in passed):
            self._require_nobody_writes(doubtful=not any(view.repeats_memory for view, _ in passed))
        writes = tuple(self._absorb(view, affine) for view, affine in ends.values())
        # From the last to the first: each reads the one before until that goes too.
        bypass = tuple((s.node, s.input) for s in self.sources)
        also = tuple(s.node for s in self.sources if self.others and (s is source or s.input in self.others))
        return Fold(writes, bypass, self.guard and self.guard._replace(also=also))

    def _pulled(self, view: Carrier, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Return what the inputs must become; for a slice the whole, if all its slices become the same affine."""
        others = self._other_parts(view) if isinstance(view, Piece) and len(self.sources) == 1 else {}
        whole = view.pull_if_uniform(affine) if isinstance(view, Piece) and others else None
        parts = [part.pull_if_uniform(source.affine()) for part, source in others.items()]
        if whole is None or not all(part is not None and part.equals(whole) for part in parts):
            return view.pull(affine)
        for source in others.values():
            self.take(source)
        self.others |= {part.node for part in others}
        self.sources += others.values()
        return [(view.input, whole)]

    def _other_parts(self, view: Piece) -> dict[Piece, AffineSource]:
        """Return the other slices that are read of a value, each with its affine; none if one has none of its own."""
        found: dict[Piece, AffineSource] = {}
        for reader in with_items(self.graph, self.graph.users(view.input)):
            part, users = self.graph.view(reader), self.graph.users(reader)
            source = self.graph.view(users[0]) if len(users) == 1 else None
            if not isinstance(part, Piece) or part.input is not view.input or not isinstance(source, AffineSource):
                return {}
            if source.input is not reader or not source.leaves_nothing:
                return {}
            if reader is not view.node:
                found[part] = source
        return found

    def _look_ahead(self, view: Join, value: fx.Node) -> None:
        """Let the next layers refuse first: splitting an affine for them costs more."""
        for part in reversed(view.inputs):
            self.behind[part] = value
            if not isinstance(self._view(part), Linear):
                return
            self._require_alone(part, view.reader)

    def _next(
        self, view: AffineSource | Carrier, step: _Step, pulled: Iterable[tuple[fx.Node, Affine]]
    ) -> Iterator[_Step]:
        """Yield the next steps: the values that an operation reads, each with its affine."""
        reader = view.reader if isinstance(view, Carrier) else view.node
        ordered = step.ordered or (isinstance(view, Copy) and view.gives_order)
        for inner, affine in pulled:
            self.behind[inner] = step.value
            yield _Step(inner, reader, affine, ordered)

    def _composed(self, affine: Affine, view: AffineSource) -> Affine:
        """Return the affine that applies ``view`` first, if the sizes fit as the numbers of axes are read."""
        first = self.take(view)
        try:
            return affine.after(first)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            detail = f"shapes {tuple(affine.scale.shape)} and {tuple(first.scale.shape)}"
            raise Refusal(Reason.NOT_PER_CHANNEL, value=self.name(view.node), detail=detail) from None

    def _require_nobody_writes(self, *, doubtful: bool) -> None:
        """Refuse later writes into what a source gave, where a view takes its place.

        Args:
            doubtful: True to count only writers that matter if an operation such as reshape returned a view.
        """
        for source in self.sources:
            writer = first_writer(self.graph, source.node, doubtful=doubtful)
            if writer is not None:
                reason = Reason.LAYOUT if writer.op == "output" else Reason.MUTATED
                raise Refusal(reason, value=self.name(source.input), users=self.name(writer))

    def _view(self, value: fx.Node) -> NodeView:
        """Return the operation that gives the value, if the walk can end there or go on."""
        if value in self.graph.dead_ends:
            raise self.graph.dead_ends[value]
        view = self.graph.view(value)
        bare = not isinstance(view, AffineSource) or view.leaves_nothing
        if view is None or not bare:
            # Every walk that comes this way ends here: remember it for all values on the way.
            refusal = refusal_of(self.graph, value, Reason.NOT_LINEAR)
            current: fx.Node | None = value
            while current is not None:
                self.graph.dead_ends[current] = refusal
                current = self.behind.get(current)
            raise refusal
        return view

    def _require_alone(self, value: fx.Node, reader: fx.Node) -> None:
        """Refuse a value that has other readers, unless these read other slices of it."""
        users = self.graph.users(value)
        if users == [reader]:
            return
        users = [user for user in with_items(self.graph, users) if user not in self.others]
        if users == [reader]:
            return
        others = [user for user in users if user is not reader]
        changed = [user for user in others if value in self.graph.mutated(user)]
        require(not changed, Reason.MUTATED, value=self.name(value), users=self.graph.names(changed))
        # A value without users is one whose only reader is dead: `users` leaves out dead readers.
        alone = not users or (users.count(reader) == 1 and self._reads_another_piece(reader, others))
        if not alone:
            made = self._origin(value)
            if made is not value and self.graph.view(made) is None:
                raise Refusal(Reason.NOT_LINEAR, value=self.name(made))
            raise Refusal(Reason.SEVERAL_USES, value=self.name(made), users=self.graph.names(others or users))

    def _origin(self, value: fx.Node) -> fx.Node:
        """Return what gives a value, leaving out identities: other forms of the graph have none."""
        while self.graph.plays(value, Noop):
            view = self.graph.view(value)
            if not isinstance(view, Noop) or not (view.droppable or view.node.target is require_rank):
                break
            value = view.input
        return value

    def _reads_another_piece(self, reader: fx.Node, others: list[fx.Node]) -> bool:
        piece = self.graph.view(reader)
        return isinstance(piece, Piece) and all(piece.is_beside(self.graph.view(other)) for other in others)

    def _absorb(self, view: Linear, affine: Affine) -> Write:
        """Return the edit that makes ``view`` give ``affine`` of what it gave."""
        self.graph.require_changeable(view.node)
        self.require_same_kind(view)
        linear_map = view.linear_map()
        vector = self.vector(view, affine, view.output_axis, linear_map.out_channels)
        for norm in (s for s in self.sources if s.is_norm and s.input is view.node):
            channels = len(norm.tensors[0])  # one channel is no scalar here: torch raises if the layer has more
            same = channels == linear_map.out_channels or norm.affine().rank != -view.output_axis
            detail = "" if same else f"{linear_map.out_channels} channels, and {channels} of the norm"
            require(same, Reason.NOT_PER_CHANNEL, value=self.name(view.node), detail=detail)
        rank = unproven_rank(self.graph, affine, view.output_axis, view.node)
        if rank is not None:
            self.rely_on(self.sources[-1], rank)
        return self.with_sources(view.with_map(linear_map.then_affine(vector)))

    def _require_no_more_axes(self, view: Carrier, affine: Affine) -> None:
        """Refuse an affine with leading axes of size one, unless the value is known to have as many axes."""
        if affine.rank > affine.trimmed().rank and not isinstance(view, Noop):
            rank = self.graph.rank(view.node)
            known = rank is not None and rank.proven and affine.rank <= rank.axes
            require(known, Reason.UNKNOWN_SHAPE, value=self.name(view.node), detail="not known")


def _keeps_rank(view: Carrier) -> bool:
    """Whether the result is known to have as many axes as the input."""
    if isinstance(view, Piece):
        return view.keeps_rank
    return isinstance(view, Noop) or (isinstance(view, Passage) and view.call.operator.shape in ("same", "same rank"))
