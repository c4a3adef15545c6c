"""The only code that changes a graph: new constants for a call, a node taken out, constants stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from fxfuse.algebra.tape import parameter_of
from fxfuse.edit.call_arguments import write_arguments
from fxfuse.edit.stacked import divide
from fxfuse.edit.storage import Storage
from fxfuse.graph.guard import Bypass
from fxfuse.graph.nodes import position_of
from fxfuse.graph.plan import Merge
from fxfuse.graph.ranks import DESCRIPTIONS
from fxfuse.graph.uses import asks_rank
from fxfuse.modules.guards import require_rank
from fxfuse.modules.lookup import fetch, shallow_copy
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.guard import Check
    from fxfuse.graph.plan import Plan, Write


class Editor:
    """Applies plans to one graph, and remembers what became of every node.

    Attributes:
        rewritten: node -> the module that it calls now, for calls of modules.
        writes: node -> what was written into it, several edits as one.
        bypassed: node -> which of its arguments took its place, and what is checked there.
        dropped: nodes that are computed no longer.
        origin: node -> the module that it called, and whose forward it stood in, before anything was changed.
        plans: what was applied.
        renamed: old names of parameters -> new names, where a weight could not keep its name.
    """

    def __init__(self, graph: Graph) -> None:
        """Edit ``graph``."""
        self.graph = graph
        self.storage = Storage(graph)
        self.graph_module = graph.graph_module
        self.rewritten: dict[fx.Node, nn.Module] = {}
        self.bypassed: dict[fx.Node, Bypass] = {}
        self.dropped: set[fx.Node] = set()
        self.origin = {node: graph.origin(node) for node in graph.nodes}
        self.renamed: dict[str, str] = {}
        self.plans: list[Plan] = []
        self.writes: dict[fx.Node, Write] = {}
        self._copies: dict[nn.Module, list[nn.Module]] = {}
        self._write_of: dict[nn.Module, Write] = {}
        self._erased: set[fx.Node] = set()
        self._targets: dict[nn.Module, str] = {}

    def copied_bytes(self, plan: Plan) -> int:
        """Return the bytes that a plan costs because a weight is shared and has to stay for others.

        Raises:
            Refusal: if there are such weights and copies are not allowed.
        """
        total = 0
        for write in plan.writes:
            users = self._others(write, plan.dropped)
            allowed = self.graph.allow_copies or not users
            require(allowed, Reason.SHARED, value=write.call.path, users=", ".join(users[:3]))
            if users and self._equal_copy(write) is None:
                total += sum(t.nbytes for t in write.constants.values() if t is not None)
        return total

    def _others(self, write: Write, dropped: Iterable[fx.Node]) -> list[str]:
        old = [write.call.tensor(name) for name, tensor in write.constants.items() if tensor is not None]
        gone = self.graph.with_constants(dropped)
        readers = ((t, self._reader(write, t)) for t in old if t is not None)
        others = [p for t, reader in readers for p in self.graph.readers.others(t, reader, apart_from=gone)]
        return list(dict.fromkeys("another call" if path == write.call.path else path for path in others))

    def _reader(self, write: Write, tensor: Tensor) -> fx.Node:
        """Return the node that reads the tensor for this call: the call, or the get_attr that feeds it alone."""
        if write.call.module is not None:
            return write.call.node
        for value in write.call.arguments.values():
            feeds_it = isinstance(value, fx.Node) and value.op == "get_attr" and len(value.users) == 1
            if feeds_it and fetch(self.graph_module, str(value.target)) is tensor:
                return value
        return write.call.node

    def apply(self, plan: Plan, *, where: str = "") -> None:
        """Do everything that a plan says; the error of a check names ``where``, by default the node's path."""
        self.plans.append(plan)
        for write in plan.writes:
            self._write(write)
        if isinstance(plan, Merge):
            self._note_merge(plan)
        for node, value in plan.bypass:
            self._bypass(node, value, plan.check_at(node), where or self.graph.path(node))
        if isinstance(plan, Merge):
            for node in plan.dropped:
                self._drop(node, plan.start)
        self.graph.changed()

    def _write(self, write: Write) -> None:
        node = write.call.node
        self.writes[node] = write.after(self.writes[node]) if node in self.writes else write
        if write.call.module is not None:
            self._write_module(write, write.call.module)
        else:
            write_arguments(self.graph, self.storage, write, self._erase_unused)

    def _note_merge(self, merge: Merge) -> None:
        """Note that a layer gives another value now, perhaps of another shape."""
        host = merge.writes[0].call.node
        host.meta.update({key: merge.result.meta[key] for key in DESCRIPTIONS if key in merge.result.meta})
        self.graph.sizes.forget(host)
        self.graph.dead_ends.clear()
        made = divide(self.graph_module.graph, host, merge.slices) if merge.slices else {}
        for node, old in made.items():
            old.replace_all_uses_with(node, delete_user_cb=lambda user: user not in made)

    def path(self, node: fx.Node) -> str:
        """Return where the user finds a node: in the model as it was, also where it calls a copy now."""
        origin = self.origin.get(node)
        if origin is None or origin.module is None:
            return self.graph.path(node)
        return self.graph.in_model(str(origin.target))

    def gone(self, node: fx.Node) -> bool:
        """Whether a node was taken out."""
        return node in self.bypassed or node in self.dropped

    def _drop(self, node: fx.Node, start: fx.Node) -> None:
        """Erase a node of which nobody uses the result any more; ``start`` is asked for the number of its axes."""
        self.dropped.add(node)
        for user in [user for user in node.users if asks_rank(user)]:
            user.replace_input_with(node, start)
        self._erase_unused(node)

    # -- calls of modules: a copy of the module

    def _write_module(self, write: Write, module: nn.Module) -> None:
        node = write.call.node
        copied = self._equal_copy(write)
        if copied is None:
            copied = self._new_copy(module, write)
            old = str(node.target)
            self.storage.place_module(node, copied)
            self._note_names(old, str(node.target), write)
        else:
            twin = next(n for n, m in self.rewritten.items() if m is copied)
            self.storage.retarget(node, str(twin.target))
        self.rewritten[node] = copied

    def _note_names(self, old: str, new: str, write: Write) -> None:
        if old != new:
            self.renamed |= {f"{old}.{name}": f"{new}.{name}" for name in write.constants}

    def _new_copy(self, module: nn.Module, write: Write) -> nn.Module:
        copied = shallow_copy(module)
        copied.__dict__.update(write.attributes)
        for name, tensor in write.constants.items():
            if tensor is None:
                copied._parameters[name] = None
                continue
            old = module._parameters.get(name)
            like = old if old is not None else module._parameters.get("weight")
            trains = write.trains or (like is not None and like.requires_grad)
            copied._buffers.pop(name, None)
            copied._parameters[name] = parameter_of(tensor, requires_grad=trains)
        self._copies.setdefault(module, []).append(copied)
        self._write_of[copied] = write
        self._targets.setdefault(module, str(write.call.node.target))
        return copied

    def _equal_copy(self, write: Write) -> nn.Module | None:
        """Return an earlier copy of the same module with the same new values: one copy serves both calls."""
        known = self._copies.get(write.call.module, ()) if write.call.module is not None else ()
        # A call that was rewritten again has left its copy behind.  Mostly there is none, and nothing to look for.
        live = set(self.rewritten.values()) if known else set()
        for copied in (copied for copied in known if copied in live):
            if not self._write_of[copied].is_like(write):
                continue
            stored = {name: copied._parameters[name] for name in write.constants}
            if all(_same(p, write.constants[name]) for name, p in stored.items()):
                return copied
        return None

    # -- nodes taken out

    def _bypass(self, node: fx.Node, value: fx.Node, guard: Check | None, where: str) -> None:
        self.bypassed[node] = Bypass(position_of(self.graph.source(node), value), guard, where)
        if guard is not None:
            more = (True,) if guard.or_more else ()
            with self.graph_module.graph.inserting_before(node):
                checked = self.graph_module.graph.call_function(require_rank, (value, guard.axes, where, *more))
            checked.meta = dict(node.meta)
            value = checked
        node.replace_all_uses_with(value)
        self.graph.taken_out(node)
        self._erase_unused(node)

    def _erase_unused(self, node: fx.Node) -> None:
        """Erase a node that nothing reads any more, and the constants that only it read."""
        pending, source = [node], self.graph.source(node)
        while pending:
            current = pending.pop()
            goes = current in self.graph.constants or current in (node, source)
            if current.users or not goes or current.op == "placeholder" or current in self._erased:
                continue
            self._erased.add(current)
            pending += current.all_input_nodes
            self.storage.forget(current)
            self.graph_module.graph.erase_node(current)

    def drop_dead(self) -> None:
        """Erase calls of which nobody uses the result, and constants that nobody reads."""
        for node in self.graph.find_dead():
            self._erase_unused(node)
        for node in reversed(self.graph.nodes):
            if node.op == "get_attr" and not node.users:
                self._erase_unused(node)

    def settle(self) -> set[nn.Module]:
        """Give copies the names of their originals where no call of those is left, and return these copies."""
        settled: set[nn.Module] = set()
        callers: dict[nn.Module, list[fx.Node]] = {}
        for node, module in self.rewritten.items():
            callers.setdefault(module, []).append(node)
        for original, copies in self._copies.items():
            target, nodes = self._targets[original], callers.get(copies[0], [])
            if nodes and self.storage.is_free(target):
                self._settle(target, copies[0], nodes)
                settled.add(copies[0])
        return settled

    def _settle(self, target: str, module: nn.Module, nodes: list[fx.Node]) -> None:
        left = str(nodes[0].target)
        self.graph.place(target, module)
        for node in nodes:
            self.storage.retarget(node, target)
        self.renamed = {old: new for old, new in self.renamed.items() if new.rpartition(".")[0] != left}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one.detach(), other))
