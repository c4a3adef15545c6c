"""A call as the rules see it: traced, with what a run says of the shape of every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, fx, nn

from fxfuse.graph.graph import Graph
from fxfuse.modules.guards import require_rank
from fxfuse.operators.roles import View

if TYPE_CHECKING:
    from tests.operators.sample import Sample


class Recording(fx.Interpreter):
    """Runs a graph, and notes every tensor as graphs of torch.export do."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["val"] = result.to("meta") if isinstance(result, Tensor) else result
        return result


Known = Literal["sizes", "axes", "nothing"]


def traced(model: nn.Module, inputs: tuple[Tensor, ...], *, known: Known = "sizes") -> Graph:
    """The graph of a model that knows the sizes of every value, or only how many axes the inputs have, or nothing."""
    graph_module = fx.symbolic_trace(model)
    if known == "sizes":
        Recording(graph_module).run(*(x.clone() for x in inputs))
    if known == "axes":
        for node, x in zip(graph_module.graph.find_nodes(op="placeholder"), inputs, strict=True):
            with graph_module.graph.inserting_after(node):
                checked = graph_module.graph.call_function(require_rank, (node, x.ndim, "the input"))
            node.replace_all_uses_with(checked, delete_user_cb=lambda user, checked=checked: user is not checked)
    return Graph(graph_module)


def seen(sample: Sample, *, known: Known = "sizes") -> tuple[Graph, View]:
    """The graph of a sample, and the view of its one call; of parts, that of the item."""
    graph = traced(sample.model, sample.inputs, known=known)
    nodes = [node for node in graph.nodes if graph.operator(node) is not None]
    checks = len(sample.inputs) if known == "axes" else 0
    assert len(nodes) - checks == sample.operations, "more than the call was read, or nothing"
    view = graph.view(nodes[-1])
    assert isinstance(view, View), "the call was not read"
    return graph, view
