"""The graphs that the graph of a program calls, put back after the edits: their constants are operands again."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from torch import Tensor, fx

from fxfuse.capture.lifted import attributes_as_inputs
from fxfuse.capture.regions import graph_calls
from fxfuse.graph.lazy_graph_module import hold
from fxfuse.modules.lookup import fetch, holds
from fxfuse.write_back.exported_program import free_name

if TYPE_CHECKING:
    from fxfuse.capture.captured import Part
    from fxfuse.capture.regions import GraphCall
    from fxfuse.edit.editor import Editor


def put_back_regions(edits: list[tuple[Part, Editor]]) -> None:
    """Put the edited graph of every region into the graph that calls it.

    Args:
        edits: all parts of a program in the order of their capture, so that regions come behind what they are in.
    """
    calls: dict[tuple[int, str], list[Editor]] = defaultdict(list)
    for part, editor in edits:
        if part.region is not None:
            calls[part.region.parent, part.region.call].append(editor)
    for (parent, name), inner in reversed(calls.items()):
        outer = edits[parent][1]
        call = next(call for call in graph_calls(outer.graph_module) if call.node.name == name)
        _put_back(outer, call, inner)


def _put_back(outer: Editor, call: GraphCall, inner: list[Editor]) -> None:
    before = [fetch(outer.graph_module, str(node.target)) for node in call.graphs]
    left = {node.name for node in inner[0].graph_module.graph.find_nodes(op="placeholder")}
    inputs = zip(before[0].graph.find_nodes(op="placeholder"), call.operands, strict=True)
    operands = [operand for placeholder, operand in inputs if placeholder.name in left]
    call.call_with(operands)
    outer.drop_dead()  # the constants that only the region read
    taken = {node.name for editor in inner for node in editor.graph_module.graph.nodes}
    for editor in inner:
        for path, readers in _constants(editor.graph_module).items():
            tensor, name = fetch(editor.graph_module, path), free_name(path, taken)
            operands.append(_operand(outer, call.node, path, tensor, readers[0]))
            meta = dict(readers[0].meta)
            for each in inner:  # all graphs take the same operands, whoever reads them
                made = attributes_as_inputs(each.graph_module.graph, {path if each is editor else "": name})
                made[name].meta = dict(meta)
    call.call_with(operands)
    for node, old, editor in zip(call.graphs, before, inner, strict=True):
        new = fx.GraphModule(editor.graph_module, editor.graph_module.graph, type(old).__name__)
        new.meta.update(old.meta)
        container, _, name = str(node.target).rpartition(".")
        hold(outer.graph_module.get_submodule(container), name, new)


def _constants(graph_module: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Return the paths of the tensors that a graph reads from its module, each with the nodes that do."""
    found: dict[str, list[fx.Node]] = {}
    for node in graph_module.graph.find_nodes(op="get_attr"):
        if isinstance(fetch(graph_module, str(node.target)), Tensor):
            found.setdefault(str(node.target), []).append(node)
    return found


def _operand(outer: Editor, before: fx.Node, path: str, tensor: Tensor, reader: fx.Node) -> fx.Node:
    """Return a node of the outer graph that reads a constant, which is stored there if it is new."""
    same = holds(outer.graph_module, path, tensor)
    target = path if same else outer.storage.store(path, tensor)
    with outer.graph_module.graph.inserting_before(before):
        node = outer.graph_module.graph.create_node("get_attr", target, (), {})
    node.meta = dict(reader.meta)
    outer.storage.note(node)
    return node
