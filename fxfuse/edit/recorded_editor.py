"""Edits of a recorded run: only where they can be brought back into modules, and with what has to be checked there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fxfuse.edit.editor import Editor
from fxfuse.graph.nodes import PART, UNTRACED
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan


class Link(NamedTuple):
    """A value that untraced code hands on, and that has to arrive as it is.

    Attributes:
        giver: the path of the module that gives it.
        taker: the path of the module that must get it.
    """

    giver: str
    taker: str


class RecordedEditor(Editor):
    """An editor that refuses what cannot be written back.

    A fold whose nodes all belong to one call of a traced forward holds for every input.  Any other rests on what the
    Python code between the modules did in this run; it is told as recorded, and checked whenever the model runs.

    Attributes:
        links: what has to be checked.
        on_record: the paths of what was folded on that.
    """

    def __init__(self, graph: Graph) -> None:
        """Edit ``graph``."""
        super().__init__(graph)
        self.links: dict[Link, None] = {}
        self.on_record: set[str] = set()

    def copied_bytes(self, plan: Plan) -> int:
        """Return the bytes that copies of shared weights cost; see ``Editor``.

        Raises:
            Refusal: if the plan cannot be written back, or copies are not allowed.
        """
        self._links_of(plan)
        return super().copied_bytes(plan)

    def apply(self, plan: Plan, *, where: str = "") -> None:
        """Do everything that a plan says, and note what has to be checked."""
        links = self._links_of(plan)
        if links is not None:
            self.links |= dict.fromkeys(links)
            gone = [*plan.stripped, *(node for node, _ in plan.bypass)]
            self.on_record |= {self.graph.path(node) for node in gone}
        super().apply(plan, where=where)

    def _links_of(self, plan: Plan) -> list[Link] | None:
        """Return the values that have to arrive, None where all is in one traced forward.

        Raises:
            Refusal: if the plan changes what untraced code does.
        """
        ends = [*(write.call.node for write in plan.writes), *(node for node, _ in plan.bypass)]
        if plan.guarded is not None:
            ends.append(plan.guarded)
        changed = list(dict.fromkeys([*ends, *plan.dropped, *plan.stripped]))
        for node in changed:
            if UNTRACED in self.graph.source(node).meta:
                raise self._refusal(node)
        between = self._between(changed)
        parts = {node.meta.get(PART) for node in (*changed, *between)}
        if len(parts) == 1 and None not in parts:
            return None
        one_module = len(changed) == 1 and changed[0].op == "call_module"
        if one_module:  # it changes by itself
            return []
        require(plan.merge is None and not between, Reason.OWN_FORWARD, value=self.graph.names(changed))
        for node in changed:
            if node.op != "call_module":
                raise self._refusal(node)
        return [
            Link(self._path(value), self._path(node))
            for node in changed
            for value in self.origin[node].inputs
            if value in changed or self.gone(value)
        ]

    def _path(self, node: fx.Node) -> str:
        return str(self.origin[node].target)

    def _refusal(self, node: fx.Node) -> Refusal:
        owner = self.graph.owner(node) or "the model"
        return Refusal(Reason.OWN_FORWARD, value=f"{self.graph.describe(node)}, called by untraced code of {owner},")

    def _between(self, changed: list[fx.Node]) -> list[fx.Node]:
        """Return the nodes through which a value goes from one of some nodes to another."""
        if len(changed) < 2:
            return []
        first, last = min(changed), max(changed)
        behind, node = set(changed), first
        after: list[fx.Node] = []
        while node is not last:  # noqa: SIM300
            node = node.next
            if node not in behind and any(read in behind for read in node.all_input_nodes):
                behind.add(node)
                after.append(node)
        before = set(changed)
        found: list[fx.Node] = []
        for node in reversed(after):
            if any(user in before for user in node.users):
                before.add(node)
                found.append(node)
        return found
