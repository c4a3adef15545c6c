"""What the tests of ``fuse_graph`` and ``FusePass`` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.support.graph_forms import made, programs
from tests.support.helpers import Model, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)


def conv_norm() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()))


def described(graph_module: fx.GraphModule) -> tuple[Any, ...]:
    """Everything by which two states of a graph can differ."""
    nodes = [(id(n), n.format_node(), dict(n.meta)) for n in graph_module.graph.nodes]
    tensors = [*graph_module.named_parameters(), *graph_module.named_buffers()]
    state = {name: (id(t), t._version, t.detach().flatten().tolist()) for name, t in tensors}
    return id(graph_module.graph), str(graph_module.graph), graph_module.code, nodes, state


def traced(model: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(model)


def exported(model: nn.Module) -> fx.GraphModule:
    graph_module: Any = programs(model, (values(*IMAGE),))[0].module()
    return graph_module


def decomposed_graph(model: nn.Module) -> fx.GraphModule:
    graph_module: Any = programs(model, (values(*IMAGE),), decomposed=True)[1].module()
    return graph_module


class Vectors(Model):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(F.linear(x, self.weight), self.mean, self.var)


def with_inputs(model: nn.Module) -> tuple[fx.GraphModule, dict[str, Tensor], Callable[[Tensor], Any]]:
    """A graph, the constants for it, and a call of it with these."""
    graph_module, state = made(model, (values(*IMAGE),))
    names = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
    return graph_module, dict(zip(names, state.values(), strict=False)), lambda x: graph_module(state, x).detach()
