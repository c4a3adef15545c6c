"""Tries the rules at every node, and records what each did; the only place that catches a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fxfuse.graph.plan import Plan
from fxfuse.modules.lookup import keeps_statistics
from fxfuse.operators.roles import AffineSource
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.report.report import Decision
from fxfuse.rules import MERGES, RULES, name_of
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.rules.fold_constants import fold_constants
from fxfuse.rules.fold_downstream import fold_downstream
from fxfuse.rules.fold_upstream import fold_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import fx, nn

    from fxfuse.edit.editor import Editor
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Merge
    from fxfuse.rules import Rule

    Veto = Callable[[Plan], Refusal | None]


def run(editor: Editor, rules: Sequence[Rule], vetoes: Sequence[Veto] = ()) -> list[Decision]:
    """Apply the rules to one graph, and return a decision for every fold and for every norm that stays.

    What a merge leaves is looked at again, until there is nothing more to merge: a norm behind a sum of convolutions
    folds once they are one.
    """
    folded: list[tuple[Decision, Plan]] = []
    while True:
        found, skipped = _round(editor, rules, vetoes)
        folded += found
        if not any(plan.merge is not None for _, plan in found):
            break
    settled = editor.settle()
    done = [_without_copy(editor, decision, plan, settled) for decision, plan in folded]
    editor.left = {node: d for node, d in skipped.items() if d is not None and not editor.gone(node)}
    folds = [rule for rule in (fold_upstream, fold_downstream) if rule not in rules]
    editor.left |= _not_asked(editor, folds) if folds else {}
    return done + list(editor.left.values())


def _not_asked(editor: Editor, folds: Sequence[Rule]) -> dict[fx.Node, Decision]:
    """Return what is to be said of norms that stay, and that rules which were not asked for would fold, or refuse."""
    graph = editor.graph
    found: dict[fx.Node, Decision] = {}
    done = {node for plan in editor.plans for node in plan.stripped}
    told = {decision.path for decision in editor.left.values()} | {graph.path(node) for node in done}
    for node in reversed(graph.nodes):
        if _is_norm(graph, node) and graph.path(node) not in told and not editor.gone(node) and node not in graph.dead:
            decision = _untried(editor, node, folds)
            if decision is not None:
                found[node] = decision
                told.add(decision.path)
    return found


def _untried(editor: Editor, node: fx.Node, folds: Sequence[Rule]) -> Decision | None:
    """Return what some rules would have said of a norm; None where there is nothing to fold."""
    refused: Decision | None = None
    for rule in folds:
        try:
            plan = rule(editor.graph, node)
        except Refusal as refusal:
            refused = _both(refused, _skipped(editor, rule, node, refusal))
            continue
        if plan is not None:
            where = editor.graph.path(node), editor.graph.owner_kind(node)
            return Decision("rules", *where, (), Reason.NOT_ASKED, Reason.NOT_ASKED.sentence())
    return refused


def _round(
    editor: Editor, rules: Sequence[Rule], vetoes: Sequence[Veto]
) -> tuple[list[tuple[Decision, Plan]], dict[fx.Node, Decision | None]]:
    """Try each rule at each node, from the last to the first, so that a chain of norms is composed before it folds."""
    folded: list[tuple[Decision, Plan]] = []
    skipped: dict[fx.Node, Decision | None] = {}
    for number, rule in enumerate(rules):
        for node in reversed(editor.graph.nodes):
            if editor.gone(node):
                continue
            try:
                offer = _offer(editor, rule, node, vetoes)
            except Refusal as refusal:
                skipped[node] = _both(skipped.get(node), _skipped(editor, rule, node, refusal))
                continue
            if offer is not None:
                offer = _cheapest(editor, offer, rules[number + 1 :], node, vetoes)
                decisions = _folded(editor, offer)
                editor.apply(offer.plan)
                folded += [(decision, offer.plan) for decision in decisions]
    return folded, skipped


class _Offer(NamedTuple):
    """What a rule would do, and the bytes of copies that it costs."""

    rule: Rule
    plan: Plan
    copied: int


_OURS = frozenset(map(id, RULES.values()))  # a rule of the user's may be anything that can be called


def _offer(editor: Editor, rule: Rule, node: fx.Node, vetoes: Sequence[Veto]) -> _Offer | None:
    plan = rule(editor.graph, node) if id(rule) in _OURS else _plan_of_theirs(editor.graph, node, rule)
    refusals = (veto(plan) for veto in vetoes) if plan is not None else ()
    for refusal in (refusal for refusal in refusals if refusal is not None):
        raise refusal
    return None if plan is None else _Offer(rule, plan, editor.copied_bytes(plan))


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
        name, where = name_of(rule), graph.path(node)
        raise FuseError(f"The rule {name} failed ({sentence(error)}) at {where}; nothing was changed.") from error
    if plan is None or (isinstance(plan, Plan) and (plan.writes or plan.bypass)):
        return plan
    raise FuseError(
        f"The rule {name_of(rule)} returned {plan!r} at {graph.path(node)}; nothing was changed. "
        "A rule returns a fxfuse.extend.Plan with writes or with nodes to bypass, or None where it has nothing to do."
    )


def _cheapest(editor: Editor, offer: _Offer, later: Sequence[Rule], node: fx.Node, vetoes: Sequence[Veto]) -> _Offer:
    """Return the offer of a later rule for the same node, where that costs less: the way onwards may be free."""
    for rule in later if offer.copied else ():
        try:
            other = _offer(editor, rule, node, vetoes)
        except Refusal:
            continue
        if other is not None and other.copied < offer.copied:
            offer = other
    return offer


def _folded(editor: Editor, offer: _Offer) -> list[Decision]:
    """Return a decision for each operation that a plan removes, all parts of one module as one."""
    rule, plan, copied = offer
    if rule is drop_noops:
        return []
    if plan.merge is not None:
        return _merged(editor, offer, plan.merge)
    graph = editor.graph
    into = tuple(editor.path(write.call.node) for write in plan.writes if write.call.node not in plan.stripped)
    gone = [*plan.stripped, *(node for node, _ in plan.bypass)]
    removed = {graph.path(node): graph.owner_kind(node) for node in gone}
    detail = "its weight and bias move on; the normalisation stays" if plan.stripped else ""
    detail = next(_conditions(offer), detail)
    if not gone:
        removed = {into[0]: graph.kind(plan.writes[0].call.node)}
        detail = "computed once from parameters alone" if rule is fold_constants else detail
    told = graph.path(plan.guarded) if plan.guarded is not None else None  # the others have nothing to check
    return [
        Decision(
            *(name_of(rule), path, kind, into, None),
            *(detail if told in (None, path) else "", plan.assumed, copied if first == 0 else 0),
        )
        for first, (path, kind) in enumerate(removed.items())
    ]


def _conditions(offer: _Offer) -> Iterator[str]:
    """Yield what a plan rests on, and what it costs."""
    if offer.plan.assumed:
        yield f"assumes {offer.plan.guard} axes there, batch included; a check stays in the model"
    if offer.copied:
        yield f"the weight is shared, so this call got a copy of {offer.copied:,} bytes"


def _merged(editor: Editor, offer: _Offer, merge: Merge) -> list[Decision]:
    """Return a decision for each operation that a merge takes in; the first one tells what all of them cost."""
    graph, plan = editor.graph, offer.plan
    into = tuple(editor.path(write.call.node) for write in plan.writes)
    removed = {editor.path(node): graph.owner_kind(node) for node in reversed(merge.gone)}
    details = [f"{merge.before} become {merge.after}", *_conditions(offer)]
    told = [
        Decision(name_of(offer.rule), path, kind, into, None, "; ".join(details), plan.assumed)
        for path, kind in removed.items()
    ]
    return [replace(told[0], copied_bytes=offer.copied, before=merge.before, after=merge.after), *told[1:]]


def _without_copy(editor: Editor, decision: Decision, plan: Plan, settled: set[nn.Module]) -> Decision:
    """Correct a decision where a copy replaced its original after all, since every call got the same one."""
    free = decision.copied_bytes and all(editor.rewritten.get(w.call.node) in settled for w in plan.writes)
    return replace(decision, copied_bytes=0, detail="") if free and plan.merge is None else decision


def _skipped(editor: Editor, rule: Rule, node: fx.Node, refusal: Refusal) -> Decision | None:
    """Return the decision for a norm that stays; other operations are not worth a line."""
    graph = editor.graph
    if not _is_norm(graph, node) and rule not in MERGES:
        return None
    return Decision(name_of(rule), graph.path(node), graph.owner_kind(node), (), refusal.reason, str(refusal))


def _both(first: Decision | None, second: Decision | None) -> Decision | None:
    """Return one decision for a norm that two rules refused: the first obstacle each way."""
    if first is None or second is None or first.detail == second.detail:
        return first or second
    obstacle, _, advice = second.detail.rpartition("; ")
    told = obstacle if first.detail.endswith(f"; {advice}") else second.detail  # the same advice once is enough
    return replace(first, detail=f"{first.detail}. Onwards: {told}", onwards=second.reason)


def _is_norm(graph: Graph, node: fx.Node) -> bool:
    """Whether a node is a norm, or part of one that is written out."""
    row = graph.operator(node)
    return (row is not None and issubclass(row.view, AffineSource) and row.view.is_norm) or _in_norm(graph, node)


def _in_norm(graph: Graph, node: fx.Node) -> bool:
    """Whether a node is part of a norm that is written out, such as a frozen batch norm."""
    owner = graph.owner(node)
    try:
        return bool(owner) and keeps_statistics(graph.graph_module.get_submodule(owner))
    except AttributeError:
        return False
