"""Which module takes the place of which, and which modules each plan changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import nn

from fxfuse.graph.uses import asks_shape
from fxfuse.modules.guards import AssumedRank
from fxfuse.modules.lookup import owner_at
from fxfuse.write_back.local_edit import LocalEdit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import fx

    from fxfuse.capture.capture import Part
    from fxfuse.edit.editor import Editor
    from fxfuse.graph.plan import Plan


def changed_nodes(plan: Plan) -> list[fx.Node]:
    """Return the nodes that a plan writes into or takes out."""
    return [*(write.call.node for write in plan.writes), *(node for node, _ in plan.bypass), *plan.dropped]


def changed_modules(part: Part, editor: Editor, plan: Plan) -> set[nn.Module]:
    """Return the user's modules that a plan changes: layers that are called, and owners of functions."""
    origins = [editor.origin[node] for node in changed_nodes(plan) if node in editor.origin]
    return {o.module if o.module is not None else owner_at(part.module, o.owner) for o in origins}


class Calls:
    """What the graphs call that are written back into the user's classes.

    Attributes:
        modules: a module -> the nodes that call it, each with the editor of its graph.
        owners: a module -> the calls of functions and methods in its own forward, once for each call of the module.
        foreign: modules of which another module's forward reads a tensor.
    """

    def __init__(self, edits: Iterable[tuple[Part, Editor]]) -> None:
        """Look at all graphs before anything is changed."""
        self.modules: dict[nn.Module, list[tuple[Editor, fx.Node]]] = defaultdict(list)
        self.owners: dict[nn.Module, list[tuple[Editor, list[fx.Node]]]] = defaultdict(list)
        self.foreign: set[nn.Module] = set()
        self._edits: dict[nn.Module, LocalEdit | None] = {}
        for part, editor in edits:
            self._note(part, editor)

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
            self._edits[owner] = LocalEdit.of(owner, *instances[0]) if len(instances) == 1 else None
        return self._edits[owner]

    def replaced(self, editor: Editor) -> dict[nn.Module, nn.Module] | None:
        """Return what takes the place of each module that the edits of one graph changed.

        Returns:
            The new modules; None if one module would need several.
        """
        found: dict[nn.Module, nn.Module | None] = {}
        for module, calls in self.modules.items():
            if any(one is editor and _changed(one, node) for one, node in calls):
                found[module] = _bypassed(calls) or _rewritten(calls)
        for module, instances in self.owners.items():
            if any(one is editor and any(_changed(one, n) for n in nodes) for one, nodes in instances):
                edit = self.local_edit(module)
                found[module] = None if edit is None else edit.module()
        whole = {module: new for module, new in found.items() if new is not None}
        for module, new in whole.items():
            new.training = module.training
        return whole if len(whole) == len(found) else None


def live(calls: list[tuple[Editor, fx.Node]]) -> list[tuple[Editor, fx.Node]]:
    """Return the calls of which somebody uses the result, or all where nobody uses any."""
    return [(editor, node) for editor, node in calls if node not in editor.graph.dead] or calls


def _changed(editor: Editor, node: fx.Node) -> bool:
    return editor.gone(node) or node in editor.writes


def _bypassed(calls: list[tuple[Editor, fx.Node]]) -> nn.Module | None:
    """Return what stands for a module that every call bypasses."""
    # A call of which nobody uses the result may stay or go, unless it would meet a check that is not meant for it.
    found = live(calls)
    bypasses = [editor.bypassed.get(node) for editor, node in found if node not in editor.dropped]
    guarded = [bypass for bypass in bypasses if bypass is not None and bypass.guard is not None]
    if None in bypasses or (guarded and len(bypasses) < len(calls)):
        return None
    return AssumedRank(guarded[0].guard or 0, guarded[0].where) if guarded else nn.Identity()


def _rewritten(calls: list[tuple[Editor, fx.Node]]) -> nn.Module | None:
    """Return the new module, if every call wants the same."""
    left = [(editor, node) for editor, node in live(calls) if node not in editor.dropped]
    wanted = [None if node in editor.bypassed else editor.rewritten.get(node) for editor, node in left]
    if None in wanted or not wanted:
        return None
    first, *others = [module for module in wanted if module is not None]
    return first if all(_equal(first, other) for other in others) else None


def _equal(one: nn.Module, other: nn.Module) -> bool:
    tensors = [list(m.state_dict().values()) for m in (one, other)]
    same = type(one) is type(other) and one.extra_repr() == other.extra_repr()  # sizes, stride, padding
    return (
        same
        and len(tensors[0]) == len(tensors[1])
        and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    )
