"""Which folds of a recorded run can be written into the modules, and the checks at run time that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxfuse.graph.nodes import PART, PIECES, RETURNED, UNTRACED
from fxfuse.graph.plan import Merge
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.write_back.checks import Link
from fxfuse.write_back.replacements import changed_modules
from fxfuse.write_back.vetoes import Vetoes

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import fx

    from fxfuse.capture.names import Names
    from fxfuse.capture.replay import Call
    from fxfuse.edit.editor import Editor
    from fxfuse.graph.plan import Plan
    from fxfuse.rules import Rule


class RecordedVetoes(Vetoes):
    """The questions to a plan for a recorded run.

    A plan whose nodes all belong to one call of a traced forward holds for every input, unless untraced code may come
    to one of its layers by itself.  Any other rests on what the Python code between the modules did in this run; it is
    told as recorded, and checked whenever the model runs.
    """

    def __init__(self, *args: Any, names: Names) -> None:
        """Keep what is asked about; see ``Vetoes``.

        Args:
            args: those of ``Vetoes``.
            names: what untraced code may use by itself when other inputs come.
        """
        super().__init__(*args)
        self._names_of_code = names
        self._known: list[tuple[Plan, list[Link] | None]] = []

    def __call__(self, plan: Plan) -> None:
        """Answer for a plan.

        Raises:
            Refusal: if the plan cannot be written back.
        """
        links = self._links_of(plan)
        super().__call__(plan)
        self._known.append((plan, links))

    def _offer(self, editor: Editor, rule: Rule, node: fx.Node) -> Plan | None:
        plan = super()._offer(editor, rule, node)
        try:
            if plan is not None and editor is self.editor:
                self._links_of(plan)
        except Refusal:
            return None
        return plan

    def links(self) -> tuple[dict[Link, None], set[fx.Node]]:
        """Return what has to be checked for the plans that were applied, and the nodes that these took out."""
        applied = {id(plan) for plan in self.editor.plans}
        links: dict[Link, None] = {}
        nodes: set[fx.Node] = set()
        for plan, found in self._known:
            if id(plan) in applied and found is not None:
                links |= dict.fromkeys(found)
                nodes |= set(plan.removed)
        return links, nodes

    def _links_of(self, plan: Plan) -> list[Link] | None:
        """Return the values that have to arrive, None where all is in one traced forward.

        Raises:
            Refusal: if the plan changes what untraced code does.
        """
        graph = self.editor.graph
        changed = list(dict.fromkeys(plan.nodes))
        for node in changed:
            if UNTRACED in graph.source(node).meta or self._is_set(node, plan):
                raise self._untraced(node)
        between = [node for node in _between(changed) if PIECES not in node.meta]
        parts = {node.meta.get(PART) for node in (*changed, *between)}
        calls = not isinstance(plan, Merge) and all(node.op == "call_module" for node in changed)
        if len(parts) == 1 and None not in parts and self._is_never_split(plan, checkable=calls and not between):
            return None
        if len(changed) == 1 and calls:
            return []  # it changes by itself
        require(not isinstance(plan, Merge), Reason.OWN_FORWARD, value=graph.names(changed))
        for node in changed:
            if node.op != "call_module":
                raise self._untraced(node)
        for node in changed if between else ():
            self._require_alone(node)
        inside = {*changed, *between}
        ends = [
            (value, node)
            for node in (*changed, *between)
            for value in self.editor.origin[node].inputs
            if (_whole(value) in inside or self.editor.gone(_whole(value)))
            and (len(parts) == 1 or not _in_one_call(value, node))
        ]
        return self._links_between(ends, between, plan)

    def _is_set(self, node: fx.Node, plan: Plan) -> bool:
        """Whether untraced code may set what a fold rests on: how a layer pads does not matter to a norm behind it."""
        takes = self.editor.graph.plays(node, Linear) and not getattr(plan, "downstream", True)
        return not takes and self._names_of_code.sets(self.editor.origin[node].module)

    def _is_never_split(self, plan: Plan, *, checkable: bool) -> bool:
        """Whether untraced code never comes to a part of a plan that is in one traced forward.

        What no module can check stays if that code calls a layer of it by name.  Code that may come to every module
        without a name was seen to call this one as a whole.

        Raises:
            Refusal: if it calls one, and no module could check what arrives.
        """
        modules = changed_modules(self.part, self.editor, plan)
        split = self._names_of_code.refusal(modules)
        if split is not None and not checkable and self._names_of_code.calls_one_of(modules):
            raise split
        return split is None or not checkable

    def _require_alone(self, node: fx.Node) -> None:
        """Refuse a layer in a traced forward to which untraced code may come by itself: the check is outside of it."""
        module = self.editor.origin[node].module
        names = self._names_of_code
        if PART in node.meta and module is not None and names.touches(module):
            raise self._untraced(node)

    def _links_between(
        self, ends: list[tuple[fx.Node, fx.Node]], between: Collection[fx.Node], plan: Plan
    ) -> list[Link]:
        """Return a link for each value and the node that takes it; no module may take a value twice.

        A traced forward takes it once, whatever it does with it.
        """
        taken = {(value, (node in between and node.meta.get(PART)) or node): (value, node) for value, node in ends}
        ends = [*taken.values()]
        takers = [(value, self._taker(node, between)) for value, node in ends]
        for (_, node), end in zip(ends, takers, strict=True):
            if takers.count(end) > 1:
                raise self._untraced(node)
        gone = [node for node, _ in plan.bypass]
        return [
            Link(self._giver(_whole(value), between), taker, any(n <= value for n in gone)) for value, taker in takers
        ]

    def _giver(self, value: fx.Node, between: Collection[fx.Node]) -> str:
        """Return the path of the module that gives a value to untraced code: a layer, or one whose forward ends so."""
        if value not in between or self._is_called_once(value):
            return self._path(value)
        call: Call | None = value.meta.get(RETURNED)
        if call is None or call != value.meta.get(PART):
            raise self._untraced(value)
        return call.path

    def _taker(self, node: fx.Node, between: Collection[fx.Node]) -> str:
        """Return the path of the module that untraced code gives a value: a layer, or one that takes nothing else."""
        if node not in between or self._is_called_once(node):
            return self._path(node)
        call: Call | None = node.meta.get(PART)
        if call is None or not call.single:
            raise self._untraced(node)
        return call.path

    def _is_called_once(self, node: fx.Node) -> bool:
        """Whether a node is the only call of a layer, in untraced code: a pool or the like that checks what it gets."""
        module = self.editor.origin[node].module
        if module is None or PART in node.meta or self._names_of_code.sets(module):
            return False
        return sum(origin.module is module for origin in self.editor.origin.values()) == 1

    def _path(self, node: fx.Node) -> str:
        return str(self.editor.origin[node].target)

    def _untraced(self, node: fx.Node) -> Refusal:
        graph = self.editor.graph
        owner = graph.in_model(graph.owner(node)) or type(self.part.module).__name__
        return Refusal(Reason.OWN_FORWARD, value=f"{graph.describe(node)} (in code of {owner} that was not traced)")


def _whole(value: fx.Node) -> fx.Node:
    """Return the value that untraced code cut into pieces, of which this is one; any other as it is."""
    while PIECES in value.meta:
        value = value.all_input_nodes[0]
    return value


def _in_one_call(one: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes are in one call of a traced forward."""
    return one.meta.get(PART) is not None and one.meta.get(PART) == other.meta.get(PART)


def _between(changed: Collection[fx.Node]) -> list[fx.Node]:
    """Return the nodes through which a value goes from one of some nodes to another."""
    first, last = min(changed), max(changed)
    behind, after, node = set(changed), list[Any](), first
    while node is not last:
        node = node.next
        if node not in behind and any(read in behind for read in node.all_input_nodes):
            behind.add(node)
            after.append(node)
    before, found = set(changed), list[Any]()
    for node in reversed(after):
        if any(user in before for user in node.users):
            before.add(node)
            found.append(node)
    return found
