"""Tries the rules at every node, applies their plans, and records each decision and each refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fxfuse.graph.plan import Fold, Merge, Plan
from fxfuse.modules.lookup import keeps_statistics
from fxfuse.operators.roles import AffineSource
from fxfuse.report.decision import Decision
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.rules import MERGES, RULES, STARTS
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.rules.fold_constants import fold_constants
from fxfuse.rules.fold_downstream import fold_downstream
from fxfuse.rules.fold_upstream import fold_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import fx, nn

    from fxfuse.edit.editor import Editor
    from fxfuse.graph.graph import Graph
    from fxfuse.report.decision import Subject
    from fxfuse.rules import Rule

_OURS = frozenset(map(id, RULES.values()))  # a rule of the user's may be anything that can be called


def run(editor: Editor, rules: Sequence[Rule], vetoes: Sequence[Callable[[Plan], None]] = ()) -> list[Decision]:
    """Apply the rules to one graph, and return a decision for every fold and for every norm that stays.

    What a merge leaves is looked at again, until there is nothing more to merge: a norm behind a sum of convolutions
    folds once they are one.

    Args:
        editor: the graph, which is changed.
        rules: the rules, in the order in which they are tried.
        vetoes: asked about every plan before it is applied; each may raise a ``Refusal``.

    Raises:
        FuseError: if a rule of the user's fails.
    """
    return _Engine(editor, rules, vetoes).run()


class _Offer(NamedTuple):
    """A plan that may be applied, with its rule and the bytes of the copies that it makes."""

    rule: Rule
    plan: Plan
    copied: int


class _Engine:
    """One pass of the rules over one graph."""

    def __init__(self, editor: Editor, rules: Sequence[Rule], vetoes: Sequence[Callable[[Plan], None]]) -> None:
        self.editor = editor
        self.graph = editor.graph
        self.rules = rules
        self.vetoes = vetoes
        self.folded: list[tuple[_Offer, Decision]] = []

    def run(self) -> list[Decision]:
        """Go through the rules until there is nothing more to merge."""
        merged = True
        while merged:
            done = len(self.folded)
            skipped = self._round()
            merged = any(isinstance(offer.plan, Merge) for offer, _ in self.folded[done:])
        settled = self.editor.settle()
        left = [decision for node, decision in skipped.items() if not self.editor.gone(node)]
        if fold_upstream not in self.rules or fold_downstream not in self.rules:
            left += self._not_asked({decision.path for decision in left})
        return [self._without_copy(*fold, settled) for fold in self.folded] + left

    def _round(self) -> dict[fx.Node, Decision]:
        """Try each rule at each node, from the last to the first, so that a chain of norms is composed before it folds.

        Returns:
            Why norms stayed, and layers that could not merge.
        """
        skipped: dict[fx.Node, Decision] = {}
        for number, rule in enumerate(self.rules):
            for node in reversed(self.graph.nodes):
                if self.editor.gone(node) or not self._may_start(rule, node):
                    continue
                try:
                    offer = self._offer(rule, node)
                except Refusal as refusal:
                    if rule in MERGES or rule is fold_constants or _is_norm(self.graph, node):  # else not worth a line
                        decision = self._stays(rule, node, refusal.reason, str(refusal))
                        skipped[node] = skipped[node].joined(decision) if node in skipped else decision
                    continue
                if offer is not None:
                    offer = self._cheapest(offer, self.rules[number + 1 :], node)
                    decisions = list(self._decisions(offer))  # the names are those before the edit
                    self.editor.apply(offer.plan)
                    self.folded += [(offer, decision) for decision in decisions]
        return skipped

    def _may_start(self, rule: Rule, node: fx.Node) -> bool:
        """Whether a rule has to be asked about a node; one of the user's about every node."""
        start, graph = STARTS.get(id(rule)), self.graph
        if start is None:
            return True
        if not graph.may_be(node, start.role) or (node.op == "call_module" and not start.modules):
            return False
        return not start.reads or any(graph.plays(read, role) for read in node.all_input_nodes for role in start.reads)

    def _offer(self, rule: Rule, node: fx.Node) -> _Offer | None:
        plan = rule(self.graph, node) if id(rule) in _OURS else _plan_of_theirs(self.graph, node, rule)
        if plan is None:
            return None
        copied = self.editor.copied_bytes(plan)
        for veto in self.vetoes:
            veto(plan)
        return _Offer(rule, plan, copied)

    def _cheapest(self, offer: _Offer, later: Sequence[Rule], node: fx.Node) -> _Offer:
        """Return the offer of a later rule for the same node, if it copies less: the way downstream may be free."""
        for rule in later if offer.copied else ():
            try:
                other = self._offer(rule, node)
            except Refusal:
                continue
            if other is not None and other.plan.downstream and other.copied < offer.copied:
                offer = other
        return offer

    def _decisions(self, offer: _Offer) -> Iterator[Decision]:
        """Yield a decision for each operation that a plan removes, all nodes of one module as one."""
        rule, plan, copied = offer
        if rule is drop_noops:
            return
        removed: dict[str, list[fx.Node]] = {}
        for node in plan.removed or plan.hosts[:1]:
            removed.setdefault(self.editor.path(node), []).append(node)
        kind_of = self.graph.owner_kind if plan.removed else self.graph.kind
        for number, (path, nodes) in enumerate(removed.items()):
            yield Decision(
                rule=_name_of(rule),
                path=path,
                kind=kind_of(nodes[-1]),
                into=tuple(map(self.editor.path, plan.hosts)),
                detail=_detail(offer),
                assumed=plan.assumed,
                copied_bytes=0 if number else copied,
                before=plan.before if isinstance(plan, Merge) and not number else None,
                after=plan.after if isinstance(plan, Merge) and not number else None,
                nodes=(*nodes, *plan.hosts),
                subject=_subject(self.graph, rule, nodes),
            )

    def _without_copy(self, offer: _Offer, decision: Decision, settled: set[nn.Module]) -> Decision:
        """Correct a decision where a copy replaced its original after all, since every call got the same one."""
        plan = offer.plan
        free = decision.copied_bytes and all(self.editor.rewritten.get(w.call.node) in settled for w in plan.writes)
        return replace(decision, copied_bytes=0, detail=_detail(offer._replace(copied=0))) if free else decision

    def _not_asked(self, told: set[str]) -> Iterator[Decision]:
        """Yield a decision for every norm that is left, besides those at paths that are told already."""
        for node in reversed(self.graph.nodes):
            path = self.graph.path(node)
            known = path in told or self.editor.gone(node) or node in self.graph.dead
            if not known and _has_affine(self.graph, node):
                told.add(path)
                yield self._stays(None, node, Reason.NOT_ASKED, Reason.NOT_ASKED.sentence())

    def _stays(self, rule: Rule | None, node: fx.Node, reason: Reason, detail: str) -> Decision:
        name = "rules" if rule is None else _name_of(rule)
        path, kind, about = self.graph.path(node), self.graph.owner_kind(node), _subject(self.graph, rule, [node])
        return Decision(name, path, kind, reason=reason, detail=detail, nodes=(node,), subject=about)


def _name_of(rule: Rule) -> str:
    """Return what a rule is called in a report: its name, or that of the class of an object."""
    return str(getattr(rule, "__name__", type(rule).__name__))


def _detail(offer: _Offer) -> str:
    """Return what a plan saves, rests on, and costs."""
    rule, plan, copied = offer
    conditions = [f"{plan.before} become {plan.after}"] if isinstance(plan, Merge) else []
    if plan.guard is not None and plan.assumed:
        number = f"{plan.guard.axes} axes{' or more' if plan.guard.or_more else ''}"
        conditions.append(f"assumes {number} there, batch included; a check of that stays; example_inputs prove it")
    if copied:
        conditions.append(f"the weight is shared, so this call got a copy of {copied:,} bytes")
    if isinstance(plan, Fold) and plan.stripped is not None:
        conditions.append("its weight and bias move on; the normalisation stays")
    if rule is fold_constants:
        conditions.append("computed once from parameters alone")
    return "; ".join(conditions)


def _plan_of_theirs(graph: Graph, node: fx.Node, rule: Rule) -> Plan | None:
    """Return the plan of a rule that the user wrote; what is wrong with it is no fault of ours.

    Raises:
        FuseError: if the rule raises, or returns what is no plan.
    """
    try:
        plan: object = rule(graph, node)
    except (Refusal, FuseError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        name, where = _name_of(rule), graph.path(node)
        raise FuseError(f"The rule {name} failed ({sentence(error)}) at {where}; nothing was changed.") from error
    if plan is None or (isinstance(plan, Plan) and (plan.writes or plan.bypass)):
        return plan
    raise FuseError(
        f"The rule {_name_of(rule)} returned {plan!r} at {graph.path(node)}; nothing was changed. "
        "A rule returns a fxfuse.extend.Plan with writes or with nodes to bypass, or None where it has nothing to do."
    )


def _subject(graph: Graph, rule: Rule | None, nodes: Sequence[fx.Node]) -> Subject:
    """Return what a decision is about."""
    if any(_has_affine(graph, node, vanishing=True) for node in nodes):
        return "norm"
    return "merge" if rule in MERGES else "constants"


def _has_affine(graph: Graph, node: fx.Node, *, vanishing: bool = False) -> bool:
    """Whether a node is a norm that a fold could remove (with ``vanishing``: wholly), or that was refused."""
    if not _is_norm(graph, node):
        return False
    try:
        view = graph.view(node)
        return not isinstance(view, AffineSource) or view.leaves_nothing or (view.may_move_downstream and not vanishing)
    except Refusal:
        return True


def _is_norm(graph: Graph, node: fx.Node) -> bool:
    """Whether a node is a norm, or part of one that is written out, such as a frozen batch norm."""
    row, owner = graph.operator(node), graph.owner(node)
    if row is not None and issubclass(row.view, AffineSource) and row.view.is_norm:
        return True
    try:
        return bool(owner) and keeps_statistics(graph.graph_module.get_submodule(owner))
    except AttributeError:
        return False
