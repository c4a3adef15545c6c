"""What the user's own classes cannot take in: asked about every plan before it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.modules.lookup import owner_at
from fxfuse.report.errors import out_of_memory
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.write_back.replacements import changed_modules

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import fx, nn

    from fxfuse.capture.captured import Part
    from fxfuse.edit.editor import Editor
    from fxfuse.graph.plan import Plan
    from fxfuse.rules import Rule
    from fxfuse.write_back.other_methods import OtherMethods
    from fxfuse.write_back.replacements import Calls, Site


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
        self.methods.require_same(changed, downstream=plan.downstream)
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
        plans, touched = [plan], [(self.editor, node) for node in plan.nodes]
        for site in touched:  # which grows
            while (other := self.calls.other_outcome(site, plans)) is not None:
                twin = None if other in touched else self._plan_for(other, touched)
                if twin is None:
                    raise self._refusal(self._module_at(site[1] if site[0] is self.editor else plan.nodes[0]))
                plans.append(twin)
                touched += [(other[0], node) for node in twin.nodes]

    def _module_at(self, node: fx.Node) -> nn.Module:
        origin = self.editor.origin[node]
        return origin.module if origin.module is not None else owner_at(self.part.module, origin.owner)

    def _plan_for(self, site: Site, touched: Collection[Site]) -> Plan | None:
        """Return a plan of the rules that changes a call, and nothing that other plans change already."""
        editor, call = site
        if editor in self.calls.finished:
            return None
        sites = [other for _, node in (site, *touched) for other in self.calls.sites.get(node, ())]
        nodes = dict.fromkeys(node for one, node in sites if one is editor and not one.gone(node))
        taken = {node for _, node in touched}
        for node in nodes:
            for rule in self.rules:
                plan = self._offer(editor, rule, node)
                if plan is not None and call in plan.nodes and taken.isdisjoint(plan.nodes):
                    return plan
        return None

    def _offer(self, editor: Editor, rule: Rule, node: fx.Node) -> Plan | None:
        try:
            return rule(editor.graph, node)
        except Exception as error:  # a rule may be the user's, whose errors are told where it is tried in earnest
            if out_of_memory(error):
                raise
            return None

    # -- forwards that have to be edited

    def _require_editable(self, plan: Plan) -> None:
        """Refuse to change calls of functions in a forward that cannot be edited."""
        writes = {write.call.node: write for write in plan.writes}
        for node in plan.nodes:
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
