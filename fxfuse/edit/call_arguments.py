"""New constants for calls of functions and methods: parameters of the GraphModule, read by the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, fx

from fxfuse.algebra.tape import parameter_of
from fxfuse.graph.registry import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse.edit.storage import Storage
    from fxfuse.graph.call import Call
    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Write


def write_arguments(graph: Graph, storage: Storage, write: Write, erase_unused: Callable[[fx.Node], None]) -> None:
    """Store the tensors of an edit, and let the call read them.

    Args:
        graph: the graph.
        storage: the names of its tensors.
        write: the edit, of a call that is none of a module.
        erase_unused: erases a node that nothing reads any more, with the constants that only it read.
    """
    if write.target is not None:
        _retarget(graph, write, write.target)
    node = graph.source(write.call.node)
    names = OPERATORS[node.target].arguments
    requires_grad = write.trains or _requires_grad(graph, write.call)
    for name, number in write.attributes.items():
        _set_argument(node, names.index(name), name, list(number) if isinstance(number, tuple) else number)
    for name, tensor in write.constants.items():
        old, between = write.call.arguments.get(name), _Copied.of(write.through.get(name))
        path = _path_for(graph, write.call, name, old if between is None else between.args[0])
        _set_argument(node, names.index(name), name, None)
        if isinstance(old, fx.Node):
            erase_unused(old)
        if tensor is None:
            continue
        parameter = parameter_of(tensor, requires_grad=requires_grad)
        with graph.graph_module.graph.inserting_before(node):
            stored = _Copied("get_attr", storage.store(path, parameter), (), {}, _description(node, parameter))
            constant = _insert(graph, storage, stored)
            if between is not None:
                constant = _insert(graph, storage, between._replace(args=(constant, *between.args[1:])))
        _set_argument(node, names.index(name), name, constant)


class _Copied(NamedTuple):
    """A copy of what a node says, for when the node is gone."""

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: dict[str, Any]

    @staticmethod
    def of(node: fx.Node | None) -> _Copied | None:
        return None if node is None else _Copied(node.op, node.target, node.args, dict(node.kwargs), dict(node.meta))


def _insert(graph: Graph, storage: Storage, copied: _Copied) -> fx.Node:
    """Add a constant node where the graph inserts."""
    node = graph.graph_module.graph.create_node(copied.op, copied.target, copied.args, copied.kwargs)
    node.meta = copied.meta
    graph.constants.note(node)
    storage.note(node)
    return node


def _retarget(graph: Graph, write: Write, target: Callable[..., Any]) -> None:
    """Let a call go to another function; what the edit gives it is still to be set."""
    call = write.call
    names = OPERATORS[target].arguments[: len(call.arguments) + 1]
    call.node.op, call.node.target = "call_function", target
    given = [call.arguments.get(name) for name in names]
    while given[-1] is None and names[len(given) - 1] not in write.constants:
        del given[-1]
    call.node.args, call.node.kwargs = tuple(given), {}
    graph.reread(call.node)


def _path_for(graph: Graph, call: Call, name: str, stored: object) -> str:
    """Return where a constant is stored: where the old one is, with the owner of the call, or beside the weight."""
    if isinstance(stored, fx.Node) and stored.op == "get_attr":
        return str(stored.target)
    owner, weight = graph.owner(call.node), call.arguments.get("weight")
    if not owner and isinstance(weight, fx.Node):
        sources = [weight, *weight.all_input_nodes]
        owner = next((str(n.target).rpartition(".")[0] for n in sources if n.op == "get_attr"), "")
    return f"{owner}.{name}".lstrip(".")


def _requires_grad(graph: Graph, call: Call) -> bool:
    weight = call.arguments.get("weight")
    sources = graph.constants.tensors(weight) if isinstance(weight, fx.Node) else []
    return any(t.requires_grad for t in sources)


def _description(node: fx.Node, tensor: Tensor) -> dict[str, Any]:
    """Return what a graph says of a value, for a new one beside ``node``."""
    meta = {key: node.meta[key] for key in ("nn_module_stack",) if key in node.meta}
    mode = getattr(node.meta.get("val"), "fake_mode", None)  # only graphs of torch.export have one
    return meta if mode is None else {**meta, "val": mode.from_tensor(tensor.detach(), static_shapes=True)}


def _set_argument(node: fx.Node, position: int, name: str, value: Any) -> None:
    if position < len(node.args):
        node.update_arg(position, value)
    elif position == len(node.args) and name not in node.kwargs and value is not None and not node.kwargs:
        node.args = (*node.args, value)
    else:
        node.update_kwarg(name, value)
