"""Edits of graphs, brought back into the user's own classes: only the modules that change are copied."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from fxfuse.capture.tracer import Tracer
from fxfuse.edit.editor import Editor
from fxfuse.graph.graph import Graph
from fxfuse.graph.plan import Guard, Plan
from fxfuse.graph.uses import asks_shape
from fxfuse.modules.derived_class import with_forward
from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.modules.lookup import fetch, holds, shallow_copy
from fxfuse.report.errors import out_of_memory
from fxfuse.write_back.replacements import Replacements

if TYPE_CHECKING:
    from fxfuse.capture.capture import Part


def replacements(edits: list[tuple[Part, Editor]]) -> Replacements:
    """Group the edits of all captured parts by the module that they belong to."""
    result = Replacements()
    _replace_called(edits, result)
    _replace_owners(edits, result)
    _find_foreign_readers(edits, result)
    return result


# -- modules that are called: a convolution with new weights, a norm that is gone


def _replace_called(edits: list[tuple[Part, Editor]], result: Replacements) -> None:
    calls: dict[nn.Module, list[tuple[Editor, fx.Node]]] = defaultdict(list)
    for _, editor in edits:
        for node, origin in editor.origin.items():
            if origin.module is not None:
                calls[origin.module].append((editor, node))
    for module, nodes in calls.items():
        if not any(editor.gone(node) or node in editor.rewritten for editor, node in nodes):
            continue
        _replace(module, _gone(nodes) or _rewritten(nodes), result)


def _replace(module: nn.Module, replacement: nn.Module | None, result: Replacements) -> None:
    if replacement is None:
        result.conflicts.add(module)
    else:
        replacement.training = module.training
        result.modules[module] = replacement


def _gone(nodes: list[tuple[Editor, fx.Node]]) -> nn.Module | None:
    """Return what stands for a module that every call bypasses."""
    # A call of which nobody uses the result may stay or go, unless it would meet a check that is not meant for it.
    live = _live(nodes)
    bypasses = [editor.bypassed.get(node) for editor, node in live if node not in editor.dropped]
    guarded = [bypass for bypass in bypasses if bypass is not None and bypass.guard is not None]
    if None in bypasses or (guarded and len(bypasses) < len(nodes)):
        return None
    return AssumedRank(guarded[0].guard or 0, guarded[0].where) if guarded else nn.Identity()


def _live(nodes: list[tuple[Editor, fx.Node]]) -> list[tuple[Editor, fx.Node]]:
    """Return the calls of which somebody uses the result, or all where nobody uses any."""
    return [(editor, node) for editor, node in nodes if node not in editor.graph.dead] or nodes


def _rewritten(nodes: list[tuple[Editor, fx.Node]]) -> nn.Module | None:
    """Return the new module, if every call wants the same."""
    left = [(editor, node) for editor, node in _live(nodes) if node not in editor.dropped]
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


# -- modules whose own forward calls functions that changed


def _replace_owners(edits: list[tuple[Part, Editor]], result: Replacements) -> None:
    calls: dict[nn.Module, list[tuple[Editor, list[fx.Node]]]] = defaultdict(list)
    for part, editor in edits:
        for (owner, _), nodes in _own_nodes(editor).items():
            calls[part.module.get_submodule(owner)].append((editor, nodes))
    for module, instances in calls.items():
        if any(_changed(editor, node) for editor, nodes in instances for node in nodes):
            _replace(module, _edited(module, *instances[0]) if len(instances) == 1 else None, result)


def _own_nodes(editor: Editor) -> dict[tuple[str, str], list[fx.Node]]:
    """Return the calls of functions and methods that each call of a module's forward makes."""
    found: dict[tuple[str, str], list[fx.Node]] = defaultdict(list)
    for node, origin in editor.origin.items():
        if node.op in ("call_function", "call_method"):
            found[origin.owner, origin.instance].append(node)
    return found


def _changed(editor: Editor, node: fx.Node) -> bool:
    return editor.gone(node) or node in editor.writes


def _edited(module: nn.Module, editor: Editor, theirs: list[fx.Node]) -> nn.Module | None:
    """Return the module with the same edits made in a graph of its own forward, children left as they are."""
    try:
        tracer = _LocalTracer()
        graph_module = tracer.capture(module)
    except Exception as error:
        if out_of_memory(error):
            raise
        return None  # a user's forward can raise anything
    local = Editor(Graph(graph_module))
    mine = _own_nodes(local).get(("", ""), [])
    if tracer.specialised or [(n.op, n.target) for n in mine] != [(n.op, n.target) for n in theirs]:
        return None
    writes = [editor.writes[twin] for twin in theirs if twin in editor.writes]
    if any(write.through or write.target for write in writes):
        return None  # other nodes belong to it, which are those of the other graph
    for node, twin in reversed(list(zip(mine, theirs, strict=True))):
        _repeat(local, node, editor, twin)
    if isinstance(module, fx.GraphModule):
        local.drop_dead()
        return fx.GraphModule(local.graph_module, local.graph_module.graph, type(module).__name__)
    try:
        return _with_graph(module, local)
    except TypeError:
        return None  # a class that does not let itself be derived from


def _repeat(local: Editor, node: fx.Node, editor: Editor, twin: fx.Node) -> None:
    """Make the edit that ``twin`` got at ``node``."""
    bypass, source = editor.bypassed.get(twin), local.graph.source(node)
    if bypass is not None:
        guard = None if bypass.guard is None else Guard(node, bypass.guard)
        local.apply(Plan(bypass=((node, bypass.value(source)),), guard=guard), where=bypass.where)
    elif twin in editor.dropped:
        # Nobody uses its result any more, so that whatever it read stands for it.
        read = [value for value in source.all_input_nodes if value not in local.graph.constants]
        if read:
            local.apply(Plan(bypass=((node, read[0]),)))
    elif twin in editor.writes:
        local.apply(Plan(writes=(replace(editor.writes[twin], call=local.graph.read(node)),)))


def _with_graph(module: nn.Module, local: Editor) -> nn.Module:
    graph = local.graph_module.graph
    local.drop_dead()
    left = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if not left and len(inputs) == 1:
        return nn.Identity()
    if len(left) == 1 and left[0].target is require_rank:
        return AssumedRank(*left[0].args[1:])
    _bring_up(module, local)
    copied, base = shallow_copy(module), type(module)
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    if parametrize.is_parametrized(module) and not any(name.startswith("parametrizations.") for name in read):
        # The weights are computed no longer, so the class is again what it was before parametrization.
        base = base.__bases__[0]
        del copied._modules["parametrizations"]
    before = {str(origin.target) for node, origin in local.origin.items() if node.op == "get_attr"}
    for store in (copied._parameters, copied._buffers):
        store.update({name: None for name in store if name in before - read})  # only the removed nodes read it
    for name, parameter in local.graph_module._parameters.items():
        if parameter is not module._parameters.get(name):
            copied._buffers.pop(name, None)
            copied._parameters[name] = parameter
    literals = {n: b for n, b in local.graph_module._buffers.items() if n in read and n not in module._buffers}
    copied._buffers.update({name: b for name, b in literals.items() if name not in copied._parameters})
    return with_forward(copied, graph, base)


class _LocalTracer(Tracer):
    """Traces the forward of one module alone: every module that it calls is a single node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        """Every module is a leaf."""
        return True


def _bring_up(module: nn.Module, local: Editor) -> None:
    """Store new tensors on the module itself, where its forward read one of a child: the child stays as it is."""
    for node in local.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or "." not in name:
            continue
        value = fetch(local.graph_module, name)
        if not holds(module, name, value):
            local.storage.retarget(node, local.storage.store(name.replace(".", "_"), value))


def _find_foreign_readers(edits: list[tuple[Part, Editor]], result: Replacements) -> None:
    """A forward that stays Python code and reads a tensor of a replaced module would read the new one."""
    for part, editor in edits:
        for node in editor.graph_module.graph.nodes:
            if node.op != "get_attr" or "." not in str(node.target) or node not in editor.origin:
                continue
            if all(asks_shape(user) for user in node.users):
                continue
            holder = part.module.get_submodule(str(node.target).rpartition(".")[0])
            reader = part.module.get_submodule(editor.origin[node].owner)
            if holder in result.modules and reader is not holder:
                result.conflicts.add(holder)
