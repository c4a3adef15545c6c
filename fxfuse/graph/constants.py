"""Where constant tensors live: parameters, buffers, and whatever can be computed from them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.graph.nodes import UNTRACED
from fxfuse.graph.registry import COMPUTES, operator_of
from fxfuse.graph.uses import mutated
from fxfuse.modules.lookup import fetch, look_up
from fxfuse.modules.mutable_state import RandomState
from fxfuse.modules.origin import is_torchs
from fxfuse.report.errors import out_of_memory
from fxfuse.report.reasons import Reason, Refusal, require

if TYPE_CHECKING:
    from collections.abc import Callable


class Constants:
    """The constant values of a graph, computed once when asked for, without gradients or side effects."""

    def __init__(self, graph_module: fx.GraphModule, module: Callable[[fx.Node], nn.Module | None]) -> None:
        """Find out which nodes are constant, and which constants the graph changes in place.

        Args:
            graph_module: the graph.
            module: tells which module a node calls.
        """
        self.graph_module = graph_module
        self._module = module
        self._sources: dict[fx.Node, frozenset[str]] = {}
        self._computed: dict[fx.Node, Tensor] = {}
        self._changed: dict[object, str] = {}
        self._idle: set[fx.Node] = set()
        for node in graph_module.graph.nodes:
            self.note(node)

    def note(self, node: fx.Node) -> None:
        """Remember which parameters and buffers a node is computed from, if from nothing else."""
        if node.op == "get_attr":
            if isinstance(fetch(self.graph_module, str(node.target)), Tensor):
                self._sources[node] = frozenset([str(node.target)])
            return
        module = self._module(node)
        if module is not None and _writes_into_buffers(module):
            self._changed |= {_memory(buffer): node.name for buffer in module.buffers()}
        changes = list(mutated(node, module))
        if not changes:
            self._idle.add(node)
        for source in (source for changed in changes for source in self._sources.get(changed, ())):
            self._changed[_memory(fetch(self.graph_module, source))] = node.name
        inputs = node.all_input_nodes
        computes = node.op in COMPUTES and UNTRACED not in node.meta
        if computes and inputs and all(i in self._sources for i in inputs) and not changes:
            self._sources[node] = frozenset().union(*(self._sources[i] for i in inputs))

    def require_unchanged(self, tensor: Tensor, *, name: str, of: object) -> None:
        """Refuse a parameter or buffer that the graph changes in place, whoever reads it."""
        user = self._changed.get(_memory(tensor)) if self._changed else None
        if user is not None:
            raise Refusal(Reason.MUTATED, value=f"{name} of {of}", users=user)

    def leaves_alone(self, node: fx.Node) -> bool:
        """Whether a node wrote into nothing when the graph was captured."""
        return node in self._idle

    def __contains__(self, node: object) -> bool:
        """Whether a node depends on parameters and buffers alone."""
        return node in self._sources

    def tensors(self, node: fx.Node) -> list[Tensor]:
        """Return the parameters and buffers that a constant is computed from."""
        return [fetch(self.graph_module, source) for source in self._sources.get(node, ())]

    def value(self, node: fx.Node, *, name: str, of: str) -> Tensor:
        """Return the tensor that a node always gives.

        Args:
            node: the node.
            name: what it is to the call that asks.
            of: the path of that call, for the refusal.

        Raises:
            Refusal: if it depends on the input or on chance, or is changed in place.
        """
        sources = self._sources.get(node)
        if sources is None:
            raise Refusal(Reason.COMPUTED, name=name, value=of)
        for source in sources:
            self.require_unchanged(fetch(self.graph_module, source), name=name, of=of)
        if node.op == "get_attr":
            return fetch(self.graph_module, str(node.target))
        if node not in self._computed:
            self._computed[node] = self._compute(node, name, of)
        return self._computed[node]

    def _compute(self, node: fx.Node, name: str, of: str) -> Tensor:
        before = RandomState.now()
        try:
            with torch.no_grad():
                result = self._evaluate(node)
            deterministic = before.is_same(RandomState.now())
        except Exception as error:
            if out_of_memory(error):
                raise
            raise Refusal(Reason.COMPUTED, name=name, value=of) from error
        finally:
            before.put_back()
        require(deterministic and isinstance(result, Tensor), Reason.COMPUTED, name=name, value=of)
        return result

    def _evaluate(self, node: fx.Node) -> Any:
        """Run the nodes that a constant is computed by, each once, in order."""
        values: dict[fx.Node, Any] = {}
        for step in _in_order(node):
            if step.op == "get_attr":
                values[step] = fetch(self.graph_module, str(step.target))
                continue
            args, kwargs = fx.node.map_arg((step.args, step.kwargs), values.__getitem__)
            if step.op == "call_method":
                values[step] = getattr(args[0], str(step.target))(*args[1:], **kwargs)
            else:
                values[step] = step.target(*args, **kwargs)  # type: ignore[operator] # a function here
        return values[node]


def _writes_into_buffers(module: nn.Module) -> bool:
    """Whether a call of a module may change its buffers: it is code of the user's, or a norm that trains."""
    theirs = operator_of(module) is None and not is_torchs(module)
    return theirs or (module.training and look_up(module, "running_mean") is not None)


def _memory(tensor: Tensor) -> object:
    """Return what identifies the memory of a tensor, which views of it share."""
    try:
        address = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        address = 0  # tensors without values, and some classes of the user's
    return ("memory", address) if address else ("tensor", id(tensor))


def _in_order(node: fx.Node) -> list[fx.Node]:
    """Return everything a node is computed from, inputs first, and the node."""
    order: dict[fx.Node, None] = {}
    pending = [node]
    while pending:
        current = pending[-1]
        missing = [i for i in current.all_input_nodes if i not in order]
        if missing:
            pending += missing
        else:
            order[pending.pop()] = None
    return list(order)
