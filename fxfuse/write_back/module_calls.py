"""The modules that the nodes of a result call: copies, so that neither side changes with the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.edit.storage import paths_above
from fxfuse.graph.registry import operator_of
from fxfuse.modules.lookup import fetch, holds
from fxfuse.write_back.copies import copies_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from fxfuse.edit.editor import Editor


def place_modules(editor: Editor, model: nn.Module, replaced: Mapping[nn.Module, nn.Module], *, inplace: bool) -> None:
    """Let the nodes of a graph call modules of its own.

    A module that stands in the graph as one node has the new versions of what is below; a layer that the graph calls
    by itself is as it was, also where it is part of such a module.

    Args:
        editor: the edits of the graph.
        model: the model that was captured.
        replaced: modules that changed within others -> what takes their place.
        inplace: share the modules that did not change.
    """
    calls = {node: module for node in editor.graph.nodes if (module := editor.graph.module(node)) is not None}
    whole = {module for module in calls.values() if operator_of(module) is None}
    if inplace:
        whole = {module for module in whole if not replaced.keys().isdisjoint(module.modules())}
    made = copies_of(model, replaced, whole) if whole else {}
    blocks = {module: made[module] for module in whole if module in made}
    layers = [] if inplace else [module for module in calls.values() if module not in whole]
    copies = {**(copies_of(model, {}, layers) if layers else {}), **blocks}
    new = {str(node.target): blocks[module] for node, module in calls.items() if module in blocks}
    _keep_tensors(editor, new)
    apart: dict[str, str] = {}
    for node, module in calls.items():
        target = str(node.target)
        if target in apart:
            editor.storage.retarget(node, apart[target])
        elif any(path in new for path in paths_above(target)):
            editor.storage.place_module(node, copies.get(module, module))
            apart[target] = str(node.target)
        elif module in copies:
            editor.graph.place(target, copies[module])


def _keep_tensors(editor: Editor, new: Mapping[str, nn.Module]) -> None:
    """Let nodes that read a tensor of a module by name read the same one when another module takes its place.

    Args:
        editor: the edits of the graph.
        new: the paths of modules -> what comes there.
    """
    for node in [node for node in editor.graph.nodes if node.op == "get_attr"]:
        target = str(node.target)
        tensor = fetch(editor.graph_module, target)
        holders = [path for path in paths_above(target) if path in new]
        if holders and not holds(new[holders[-1]], target.removeprefix(f"{holders[-1]}."), tensor):
            editor.storage.retarget(node, editor.storage.store(target, tensor))
