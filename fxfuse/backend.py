"""``torch.compile(model, backend="fxfuse")``: fold, then hand on to another backend.

Dynamo passes parameters as inputs, and uses one compiled graph for every module of the same structure.  So the folded
weights are inputs of what is compiled too, and are computed anew when other parameters, or changed ones, come in.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxfuse.api import fuse_graph
from fxfuse.constants import fetch
from fxfuse.report import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KEPT = 8  # sets of parameters of which the folded weights are remembered


def fxfuse(
    graph_module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Compile a graph of Dynamo with what can be folded in it folded.

    Graphs that may be differentiated are handed on as they are: under ``torch.no_grad()`` or
    ``torch.inference_mode()``, or where nothing requires gradients, weights are constants.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> compiled = torch.compile(model, backend="fxfuse", options={"backend": "eager"})
        >>> with torch.no_grad():
        ...     compiled(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 8, 6, 6])

    Args:
        graph_module: the graph.
        example_inputs: what it is called with.
        options: ``"backend"``: the name of the backend that compiles the result, or the function, by default
            ``"inductor"``; ``"report"``: a function that is called with the ``Report`` of each graph; the others are
            those of ``fuse_graph``.

    Raises:
        FuseError: if there is no backend of that name.
    """
    chosen = dict(options or {})
    compiler, tell = _backend(chosen.pop("backend", "inductor")), chosen.pop("report", None)
    trained = torch.is_grad_enabled() and any(isinstance(i, Tensor) and i.requires_grad for i in example_inputs)
    constants = {} if trained else _constants(graph_module, example_inputs)
    if not constants:
        return compiler(graph_module, list(example_inputs))
    folding = _Folding(graph_module, tuple(constants), chosen)
    try:
        folded = folding.folded(list(constants.values()))
    except FuseError:
        return compiler(graph_module, list(example_inputs))
    if tell is not None:
        tell(folded.report)
    if not folded.report:
        return compiler(graph_module, list(example_inputs))
    added = [_example(graph_module, tensor) for tensor in folded.tensors.values()]
    return _Compiled(folding, folded, compiler(folded.graph_module, [*example_inputs, *added]))


def _backend(chosen: Any) -> Callable[..., Any]:
    if callable(chosen):
        return chosen
    try:
        return torch._dynamo.lookup_backend(chosen)
    except Exception as error:
        known = ", ".join(torch._dynamo.list_backends())
        raise FuseError(f"There is no backend {chosen!r} to hand the folded graph to; known are {known}.") from error


def _constants(graph_module: fx.GraphModule, example_inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Return the inputs that are parameters and buffers of modules, by the names of their placeholders."""
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    return {
        node.name: value
        for node, value in zip(placeholders, example_inputs, strict=True)
        if isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and "_buffers[" in _source(node))
    }


def _source(node: fx.Node) -> str:
    """Return the Python expression that Dynamo read an input from."""
    name = getattr(getattr(node.meta.get("grapharg"), "source", None), "name", "")
    return str(name() if callable(name) else name)


def _example(graph_module: fx.GraphModule, tensor: Tensor) -> Tensor:
    """Return a tensor as Dynamo would describe it to a backend: of a shape that never changes."""
    values = (node.meta.get("example_value") for node in graph_module.graph.nodes)
    mode = next((value.fake_mode for value in values if hasattr(value, "fake_mode")), None)
    return tensor if mode is None else mode.from_tensor(tensor, static_shapes=True)


class _Folded(NamedTuple):
    graph_module: fx.GraphModule
    tensors: dict[str, Tensor]
    report: Any


class _Folding:
    """Folds one graph, for any parameters that it may be called with."""

    def __init__(self, graph_module: fx.GraphModule, names: tuple[str, ...], options: dict[str, Any]) -> None:
        self.graph_module = graph_module
        self.options = options
        self.names = names
        inputs = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
        self.positions = [inputs.index(name) for name in names]

    def folded(self, constants: Sequence[Tensor]) -> _Folded:
        """Return the graph with the folded weights as further inputs, and these."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph_module.graph, {}))
        result = fx.GraphModule(self.graph_module, graph)
        with torch.no_grad():
            report = fuse_graph(result, dict(zip(self.names, constants, strict=True)), **self.options)
        return _Folded(result, _lift_new(result), report)


def _lift_new(graph_module: fx.GraphModule) -> dict[str, Tensor]:
    """Make inputs of the parameters that a fold has added, behind the others, and return them."""
    graph, tensors = graph_module.graph, dict[str, Tensor]()
    new = [n for n in graph.nodes if n.op == "get_attr" and isinstance(fetch(graph_module, n.target), nn.Parameter)]
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in new:
        tensors[node.target] = fetch(graph_module, node.target).detach()
        with graph.inserting_after(last):
            last = graph.placeholder(f"folded_{len(tensors)}")
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    graph_module.recompile()
    return tensors


class _Known(NamedTuple):
    """The folded weights of some parameters, as long as these are what they were."""

    parameters: list[weakref.ref[Tensor]]
    versions: list[tuple[int, int]]
    folded: list[Tensor] | None

    def of(self, parameters: Sequence[Tensor]) -> bool:
        same = all(ref() is p for ref, p in zip(self.parameters, parameters, strict=True))
        return same and self.versions == [_version(p) for p in parameters]


class _Compiled:
    """What Dynamo calls: the compiled graph, with the folded weights of the parameters that come in."""

    def __init__(self, folding: _Folding, folded: _Folded, compiled: Callable[..., Any]) -> None:
        self.folding = folding
        self.compiled = compiled
        self.shapes = {path: tensor.shape for path, tensor in folded.tensors.items()}
        self.known: list[_Known] = []

    def __call__(self, *args: Any) -> Any:
        parameters = [args[position] for position in self.folding.positions]
        known = next((known for known in self.known if known.of(parameters)), None) or self._fold(parameters)
        if known.folded is None:  # other values, with which another fold is possible: run what was not folded
            return self.folding.graph_module(*args)
        return self.compiled(*args, *known.folded)

    def _fold(self, parameters: list[Tensor]) -> _Known:
        try:
            tensors = self.folding.folded(parameters).tensors
        except FuseError:
            tensors = {}
        same = {path: tensor.shape for path, tensor in tensors.items()} == self.shapes
        known = _Known(
            [weakref.ref(p) for p in parameters],
            [_version(p) for p in parameters],
            list(tensors.values()) if same else None,
        )
        self.known = [known, *self.known[: _KEPT - 1]]
        return known


def _version(tensor: Tensor) -> tuple[int, int]:
    """Return where a tensor is, and how often it was written into; tensors of inference mode do not count that."""
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
