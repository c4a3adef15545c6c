"""Which module takes the place of which, and which modules each plan changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias

from torch import nn

from fxfuse.graph.uses import asks_shape
from fxfuse.modules.guards import AssumedRank
from fxfuse.modules.lookup import owner_at
from fxfuse.write_back.local_edit import LocalEdit
from fxfuse.write_back.outcomes import outcome_of, plans_for, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import fx

    from fxfuse.capture.captured import Part
    from fxfuse.edit.editor import Editor
    from fxfuse.graph.guard import Bypass
    from fxfuse.graph.plan import Plan

Site: TypeAlias = "tuple[Editor, fx.Node]"
"""A node, with the editor of its graph."""


def changed_modules(part: Part, editor: Editor, plan: Plan) -> set[nn.Module]:
    """Return the user's modules that a plan changes: layers that are called, and owners of functions."""
    origins = [editor.origin[node] for node in plan.nodes if node in editor.origin]
    return {o.module if o.module is not None else owner_at(part.module, o.owner) for o in origins}


class Calls:
    """What the graphs call that are written back into the user's classes.

    Attributes:
        modules: a module -> the nodes that call it.
        owners: a module -> the calls of functions and methods in its own forward, once for each call of the module.
        foreign: modules of which another module's forward reads a tensor.
        sites: a node -> all nodes that the same piece of the user's code makes.
        finished: the editors of graphs in which no rule will be asked any more.
    """

    def __init__(self, edits: Iterable[tuple[Part, Editor]]) -> None:
        """Look at all graphs before anything is changed."""
        self.modules: dict[nn.Module, list[Site]] = defaultdict(list)
        self.owners: dict[nn.Module, list[tuple[Editor, list[fx.Node]]]] = defaultdict(list)
        self.foreign: set[nn.Module] = set()
        self.sites: dict[fx.Node, list[Site]] = {}
        self.finished: set[Editor] = set()
        self._edits: dict[nn.Module, LocalEdit | None] = {}
        for part, editor in edits:
            self._note(part, editor)
        for calls in self.modules.values():
            self.sites |= dict.fromkeys((node for _, node in calls), calls)
        for instances in self.owners.values():
            if _alike(instances):
                for column in zip(*(nodes for _, nodes in instances), strict=True):
                    sites = [(editor, node) for (editor, _), node in zip(instances, column, strict=True)]
                    self.sites |= dict.fromkeys(column, sites)

    def _note(self, part: Part, editor: Editor) -> None:
        own: dict[tuple[str, str], list[fx.Node]] = defaultdict(list)
        for node, origin in editor.origin.items():
            if origin.module is not None:
                self.modules[origin.module].append((editor, node))
            elif node.op in ("call_function", "call_method"):
                own[origin.owner, origin.instance].append(node)
            elif node.op == "get_attr" and "." in str(node.target) and not all(map(asks_shape, node.users)):
                holder = part.module.get_submodule(str(node.target).rpartition(".")[0])
                if owner_at(part.module, origin.owner) is not holder:
                    self.foreign.add(holder)
        for (owner, _), nodes in own.items():
            self.owners[owner_at(part.module, owner)].append((editor, nodes))

    def local_edit(self, owner: nn.Module) -> LocalEdit | None:
        """Return what edits the forward of a module, None where that is impossible."""
        if owner not in self._edits:
            instances = self.owners[owner]
            self._edits[owner] = LocalEdit.of(owner, *instances[0]) if _alike(instances) else None
        return self._edits[owner]

    def other_outcome(self, site: Site, plans: Sequence[Plan] = (), *, finished: bool = False) -> Site | None:
        """Return a node that the same code makes, and of which something else becomes, so that no code does for both.

        Args:
            site: the node.
            plans: what will be done besides what was done.
            finished: nothing will be done after that.
        """
        editor, node = site
        sites = self.sites.get(node, [])
        if len(sites) < 2:
            return None
        done = plans_for(node, (*editor.plans, *plans))
        exact, outcome = editor.origin[node].module is None, outcome_of(editor, node, done)
        # A call of a module of which nobody uses the result may stay or go, ...
        counted = sites if exact else [s for s in sites if s[1] not in s[0].graph.dead] or sites
        for other in counted:
            theirs = plans_for(other[1], (*other[0].plans, *plans))
            # The graphs of other parts may be done, and a step ahead.
            theirs = theirs if finished or other[0] is editor else theirs[: len(done)]
            if not same(outcome, outcome_of(*other, theirs), exact=exact):
                return other
        # ... unless it would meet a check that is not meant for it.
        return site if outcome.guard is not None and len(counted) < len(sites) else None

    def replaced(self, part: Part, editor: Editor) -> dict[nn.Module, nn.Module] | None:
        """Return what takes the place of each module that the edits of one graph changed.

        Returns:
            The new modules; None if one module would need several.
        """
        outcomes = {n: outcome_of(editor, n, editor.plans) for p in editor.plans for n in p.nodes if n in editor.origin}
        if any(self.other_outcome((editor, node), finished=True) is not None for node in outcomes):
            return None
        functions = [origin for node in outcomes if (origin := editor.origin[node]).module is None]
        edits = {owner: self.local_edit(owner) for owner in {owner_at(part.module, o.owner) for o in functions}}
        if None in edits.values():
            return None
        found = {owner: edit.module for owner, edit in edits.items() if edit is not None}
        for node, outcome in outcomes.items():
            module = editor.origin[node].module
            if module is not None and outcome.argument is not None:
                found[module] = _stand_in(editor.bypassed[node])
            elif module is not None and not outcome.dropped:
                found[module] = editor.rewritten[node]
            elif module is not None:
                found.setdefault(module, nn.Identity())  # another call may say more
        for module, new in found.items():
            new.training = module.training
        return found


def _stand_in(bypass: Bypass) -> nn.Module:
    return nn.Identity() if bypass.guard is None else AssumedRank(bypass.guard.axes, bypass.where, bypass.guard.or_more)


def _alike(instances: list[tuple[Editor, list[fx.Node]]]) -> bool:
    """Whether every call of a forward makes the same calls of functions."""
    made = [[(node.op, node.target) for node in nodes] for _, nodes in instances]
    return all(other == made[0] for other in made)
