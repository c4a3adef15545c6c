"""What the user's own classes cannot take in: asked about every plan before it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from fxfuse.modules.lookup import owner_at
from fxfuse.report.errors import out_of_memory
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.replacements import changed_modules, changed_nodes, live

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor, fx, nn

    from fxfuse.capture.capture import Part
    from fxfuse.edit.editor import Editor
    from fxfuse.graph.plan import Plan, Write
    from fxfuse.rules import Rule
    from fxfuse.write_back.other_methods import OtherMethods
    from fxfuse.write_back.replacements import Calls


class Vetoes:
    """The questions to a plan for one graph that is written back into the user's classes.

    Attributes:
        part: what was captured.
        editor: the edits of its graph.
        rules: what is tried at each node.
        calls: the calls of all graphs.
        methods: the methods beside the forwards.
        paths: where each module stands in the model.
    """

    def __init__(
        self,
        part: Part,
        editor: Editor,
        rules: Sequence[Rule],
        calls: Calls,
        methods: OtherMethods,
        paths: Mapping[nn.Module, str],
    ) -> None:
        """Keep what is asked about."""
        self.part = part
        self.editor = editor
        self.rules = rules
        self.calls = calls
        self.methods = methods
        self.paths = paths

    def __call__(self, plan: Plan) -> None:
        """Answer for a plan.

        Raises:
            Refusal: if the plan cannot be written back.
        """
        changed = changed_modules(self.part, self.editor, plan)
        for module in changed & self.calls.foreign:
            raise self._refusal(module)
        self._require_stand_in(plan)
        self._require_one_replacement(plan)
        self.methods.require_same(changed, onwards=plan.onwards)
        self._require_editable(plan)

    def _refusal(self, module: nn.Module) -> Refusal:
        return Refusal(Reason.OWN_FORWARD, value=self.paths[module] or type(module).__name__)

    def _require_stand_in(self, plan: Plan) -> None:
        """Refuse to take out a module that is called in a way in which an identity cannot be called."""
        for node in [*(node for node, _ in plan.bypass), *plan.dropped]:
            origin = self.editor.origin.get(node)
            if origin is not None and origin.module is not None:
                alone = len(node.args) + len(node.kwargs) == 1 and node.kwargs.keys() <= {"input"}
                if not alone:
                    raise self._refusal(origin.module)

    # -- modules that are called several times

    def _require_one_replacement(self, plan: Plan) -> None:
        """Refuse a plan for one of several calls of a module, unless the rules want the same for the others."""
        plans, touched = [plan], set(changed_nodes(plan))
        while (call := self._differing_call(plans, touched)) is not None:
            twin = None if call in touched else self._twin(call, touched)
            if twin is None:
                module = self.editor.origin[call].module
                assert module is not None  # noqa: S101 - it is a call of one
                raise self._refusal(module)
            plans.append(twin)
            touched.update(changed_nodes(twin))

    def _differing_call(self, plans: Sequence[Plan], touched: Collection[fx.Node]) -> fx.Node | None:
        """Return a call of a module that plans change, which does not become what another call of it becomes."""
        for node in touched:
            origin = self.editor.origin.get(node)
            calls = self.calls.modules[origin.module] if origin is not None and origin.module is not None else ()
            if len(calls) < 2:
                continue
            fate = self._fate(node, plans)
            for editor, other in live(list(calls)):
                if editor is not self.editor or not _same(fate, self._fate(other, plans)):
                    return other if editor is self.editor else node
            if fate.guard is not None and len(live(list(calls))) < len(calls):
                return node
        return None

    def _fate(self, node: fx.Node, plans: Sequence[Plan]) -> _Fate:
        """Return what becomes of a call by what was done and some plans."""
        editor = self.editor
        bypass, write = editor.bypassed.get(node), editor.writes.get(node)
        dropped, bypassed, guard = node in editor.dropped, bypass is not None, bypass and bypass.guard
        for plan in plans:
            for new in (new for new in plan.writes if new.call.node is node):
                write = new if write is None else new.after(write)
            dropped = dropped or node in plan.dropped
            if any(node is gone for gone, _ in plan.bypass):
                guarded = plan.guarded or plan.bypass[-1][0]
                bypassed, guard = True, plan.guard if guarded is node else None
        return _Fate(dropped, bypassed, guard, write)

    def _twin(self, call: fx.Node, touched: Collection[fx.Node]) -> Plan | None:
        """Return a plan of the rules that changes a call, and nothing that other plans change already."""
        modules = {self.editor.origin[node].module for node in (*touched, call) if node in self.editor.origin}
        nodes = [n for m in modules if m is not None for one, n in self.calls.modules[m] if one is self.editor]
        for node in (node for node in nodes if not self.editor.gone(node)):
            for rule in self.rules:
                changed = (plan := self._offer(rule, node)) and changed_nodes(plan)
                if plan is not None and changed and call in changed and not set(changed) & set(touched):
                    return plan
        return None

    def _offer(self, rule: Rule, node: fx.Node) -> Plan | None:
        try:
            return rule(self.editor.graph, node)
        except Exception as error:  # a rule may be the user's, whose errors are told where it is tried in earnest
            if out_of_memory(error):
                raise
            return None

    # -- forwards that have to be edited

    def _require_editable(self, plan: Plan) -> None:
        """Refuse to change calls of functions in a forward that cannot be edited."""
        writes = {write.call.node: write for write in plan.writes}
        for node in changed_nodes(plan):
            origin = self.editor.origin.get(node)
            if origin is None or origin.module is not None:
                continue
            owner, write = owner_at(self.part.module, origin.owner), writes.get(node)
            moved = write is not None and (write.through or write.target)  # other nodes belong to it
            self.methods.require_unread(owner, self._names(node), self._names(node) if write is None else set())
            if moved or self.calls.local_edit(owner) is None:
                raise self._refusal(owner)

    def _names(self, node: fx.Node) -> set[str]:
        """Return the names of the tensors, held by the module in whose forward a call stands, that the call reads."""
        graph, owner = self.editor.graph, self.editor.origin[node].owner
        pending, found = [graph.source(node)], set[str]()
        while pending:
            for value in pending.pop().all_input_nodes:
                target = str(value.target).removeprefix(f"{owner}.").removeprefix("parametrizations.")
                if value.op == "get_attr":
                    found.add(target.partition(".")[0])
                elif value in graph.constants:
                    pending.append(value)
        return found


class _Fate(NamedTuple):
    """What becomes of a call of a module.

    Attributes:
        dropped: nobody reads its result any more.
        bypassed: its readers read its input.
        guard: the number of axes that is checked in its place, or None.
        write: its new tensors, or None.
    """

    dropped: bool
    bypassed: bool
    guard: int | None
    write: Write | None


def _same(one: _Fate, other: _Fate) -> bool:
    """Whether one module can do for two calls of which these are the fates."""
    if one.dropped or other.dropped:
        return one.dropped == other.dropped or any((one.bypassed, one.write, other.bypassed, other.write))
    if one[:3] != other[:3] or (one.write is None) != (other.write is None):
        return False
    if one.write is None or other.write is None or one.bypassed:
        return True
    first, second = one.write.constants, other.write.constants
    tensors = first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)
    return tensors and dict(one.write.attributes) == dict(other.write.attributes)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one.detach(), other.detach()))
