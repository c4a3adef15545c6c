"""A graph as plain data, for pickle.

torch stores a GraphModule as code, and restores it by tracing that code.  Where the tracer misreads the code, another
function comes back: ``a *= 3`` on a view becomes ``a * 3``.  Where it cannot follow (a buffer sliced by a traced size),
it raises.  So the nodes are stored as they are.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any, NamedTuple

import torch
from torch import fx

_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)


class _Value(NamedTuple):
    """Stands for the value of a node among the arguments of another."""

    name: str


class _Operator(NamedTuple):
    """Stands for one of torch's operators, which pickle cannot store: ``aten.add.Tensor``."""

    path: str


class _Function(NamedTuple):
    """Stands for what pickle would look for elsewhere than where it is: ``F.max_pool2d``, ``torch.channels_last``."""

    home: str
    name: str


class SavedNode(NamedTuple):
    """What is stored of a node."""

    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any
    annotation: Any


class SavedGraph(NamedTuple):
    """What is stored of a graph."""

    nodes: list[SavedNode]
    codegen: fx.graph.CodeGen


def save_graph(graph: fx.Graph) -> SavedGraph:
    """Return a graph as data that pickle can store, without the metadata of its nodes.

    Example:
        >>> import torch
        >>> graph = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU())).graph
        >>> [node.op for node in save_graph(graph).nodes]
        ['placeholder', 'call_module', 'output']
    """
    return SavedGraph([_saved(node) for node in graph.nodes], graph._codegen)


def load_graph(saved: SavedGraph) -> fx.Graph:
    """Return the graph that ``save_graph`` stored."""
    graph, nodes = fx.Graph(tracer_cls=fx.Tracer), dict[str, fx.Node]()

    def restored(value: Any) -> Any:
        return nodes[value.name] if isinstance(value, _Value) else _operator(value)

    for node in saved.nodes:
        args, kwargs = _mapped((node.args, node.kwargs), restored)
        new = graph.create_node(node.op, _operator(node.target), args, kwargs, node.name, node.annotation)
        new.name = node.name
        nodes[node.name] = new
    graph.set_codegen(saved.codegen)
    return graph


def _saved(node: fx.Node) -> SavedNode:
    args, kwargs = _mapped((node.args, node.kwargs), _stand_in)
    return SavedNode(node.op, node.name, _stand_in(node.target), args, kwargs, _stored_annotation(node.type))


def _stand_in(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return _Value(value.name)
    if isinstance(value, torch.memory_format):  # pickle's older protocols, which torch.save takes, know none
        return _Function("torch", str(value).removeprefix("torch."))
    if not isinstance(value, _OPERATORS):
        return _function(value) if "<locals>" in getattr(value, "__qualname__", "") else value
    higher = isinstance(value, torch._ops.HigherOrderOperator)
    return _Operator(f"higher_order.{value._name}" if higher else str(value))


def _function(value: Any) -> Any:
    """Return what stands for a function that was made in another one, if the file that it is of has it."""
    home, name = value.__module__, value.__name__
    return _Function(home, name) if getattr(sys.modules.get(home), name, None) is value else value


def _operator(value: Any) -> Any:
    if isinstance(value, _Function):
        return getattr(importlib.import_module(value.home), value.name)
    if not isinstance(value, _Operator):
        return value
    found: Any = torch.ops
    for name in value.path.split("."):
        found = getattr(found, name)
    return found


def _mapped(value: Any, function: Any) -> Any:
    """Return arguments with every leaf exchanged; named tuples that stand for something are leaves."""
    if isinstance(value, (_Value, _Operator, _Function)):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(item, function) for item in (value.start, value.stop, value.step)))
    if isinstance(value, (list, tuple)):
        items = [_mapped(item, function) for item in value]
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return function(value)


def _stored_annotation(annotation: Any) -> Any:
    """Return the type of an argument, None for one that pickle cannot store; only TorchScript reads it."""
    try:
        pickle.dumps(annotation)
    except Exception:  # noqa: BLE001 - pickle raises many kinds
        return None
    return annotation
