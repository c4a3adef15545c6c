"""Graphs that take their parameters as inputs become graphs that read them from their module, and back."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from torch import Tensor, fx, nn

from fxfuse.graph.lazy_graph_module import Draft, hold

if TYPE_CHECKING:
    from collections.abc import Mapping


def inputs_as_attributes(graph: fx.Graph, paths: Mapping[str, str], *, keep: bool = False) -> fx.Graph:
    """Return a copy of a graph in which some placeholders are attributes of the module.

    Args:
        graph: the graph.
        paths: names of placeholders -> where the module holds what is passed for them; none for a plain copy.
        keep: whether the placeholders stay, unused.
    """
    result, values = fx.Graph(tracer_cls=graph._tracer_cls), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        path = paths.get(node.name) if node.op == "placeholder" else None
        if path is None or keep:
            values[node] = result.node_copy(node, values.__getitem__)
            values[node].name = node.name  # torch.export allows names that other graphs avoid, as "input"
        if path is not None:
            values[node] = result.create_node("get_attr", path, (), {}, None if keep else node.name)
            values[node].meta = dict(node.meta)
    for node in reversed(result.nodes):
        # Norms give tuples of which most items are never used.
        if node.op == "call_function" and node.target is operator.getitem and not node.users:
            result.erase_node(node)
    result.set_codegen(graph._codegen)
    return result


def copy_of(draft: Draft) -> Draft:
    """Return the same graph with the same modules and tensors, to be changed by itself."""
    return Draft(draft, inputs_as_attributes(draft.graph, {}), type(draft).__name__)


def holder_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return empty modules that hold tensors at dotted paths, parameters as parameters."""
    root = nn.Module()
    for path, tensor in tensors.items():
        *containers, name = path.split(".")
        holder = root
        for container in containers:
            holder = holder._modules.setdefault(container, nn.Module())  # type: ignore[assignment] # never None here
        hold(holder, name, tensor)
    return root


def attributes_as_inputs(graph: fx.Graph, names: Mapping[str, str]) -> dict[str, fx.Node]:
    """Let placeholders give what a graph reads from its module, in place: undo ``inputs_as_attributes``.

    Args:
        graph: the graph.
        names: paths of attributes -> names of placeholders; those that are new come after the others.

    Returns:
        All placeholders by name.
    """
    inputs = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    body = next(node for node in graph.nodes if node.op != "placeholder")
    readers: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in names:
            readers.setdefault(node.target, []).append(node)
    for path, name in names.items():
        found = readers.get(path, [])
        if name not in inputs:
            with graph.inserting_before(body):
                new = inputs[name] = graph.placeholder(name)
            new.name, new.meta = name, dict(found[0].meta) if found else {}
        for node in found:
            node.replace_all_uses_with(inputs[name])
            body = node.next if node is body else body
            graph.erase_node(node)
    return inputs
