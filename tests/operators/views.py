"""A call as the rules see it: traced, with what a run says of the shape of every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from fxfuse.graph import Graph

if TYPE_CHECKING:
    from fxfuse.operators.roles import View
    from tests.operators.sample import Sample


class Recording(fx.Interpreter):
    """Runs a graph, and notes every tensor as graphs of torch.export do."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["val"] = result.to("meta") if isinstance(result, Tensor) else result
        return result


Known = Literal["sizes", "axes", "nothing"]


def traced(model: nn.Module, inputs: tuple[Tensor, ...], *, known: Known = "sizes") -> Graph:
    """The graph of a model that knows the sizes of every value, or only how many axes it has, or nothing."""
    graph_module = fx.symbolic_trace(model)
    copies = [x.clone() for x in inputs]
    if known == "sizes":
        Recording(graph_module).run(*copies)
    elif known == "axes":
        ShapeProp(graph_module).propagate(*copies)
    return Graph(graph_module)


def seen(sample: Sample, *, known: Known = "sizes") -> tuple[Graph, View]:
    """The graph of a sample, and the view of its one call; of parts, that of the item."""
    graph = traced(sample.model, sample.inputs, known=known)
    nodes = [node for node in graph.nodes if graph.operator(node) is not None]
    assert len(nodes) == (2 if sample.role == "Parts" else 1), "more than the call was read, or nothing"
    view = graph.view(nodes[-1])
    assert view is not None, "the call was not read"
    return graph, view
