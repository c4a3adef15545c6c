"""``torch.compile(model, backend="fxfuse")``: fold, then hand on to another backend.

Dynamo passes parameters as inputs, and uses one compiled graph for every module of the same structure.  So the folded
weights are inputs of what is compiled too, and are computed anew when other parameters, or changed ones, come in.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxfuse.api import fuse_graph
from fxfuse.capture.lifted import attributes_as_inputs, inputs_as_attributes
from fxfuse.frontends.snapshot import Snapshot
from fxfuse.modules.lookup import fetch
from fxfuse.pipeline.entry import checked_rules, require_options
from fxfuse.pipeline.options import Options
from fxfuse.report.errors import FuseError, sentence
from fxfuse.report.table import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fxfuse.report.report import Report

DIFFERENTIATED = (
    "fxfuse leaves a graph as it is, in which {} would fold: it may be differentiated. Call the compiled "
    "model under torch.no_grad() or torch.inference_mode(), or let nothing require gradients."
)
_CACHE_SIZE = 8  # sets of parameters of which the folded weights are remembered


def fxfuse(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a graph of Dynamo with what can be folded in it folded.

    Graphs that may be differentiated are handed on as they are, with a warning where something would fold: under
    ``torch.no_grad()`` or ``torch.inference_mode()``, or where nothing requires gradients, weights are constants.

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
        mode: the mode of the backend that compiles the result: ``"max-autotune"``, say.
        options: ``"backend"``: the name of the backend that compiles the result, or the function, by default
            ``"inductor"``; ``"mode"`` and ``"options"``: what that backend takes; ``"report"``: a function that is
            called with the ``Report`` of each graph; the others are those of ``fuse_graph``.

    Raises:
        FuseError: if an option is unknown, or there is no backend of that name.
    """
    chosen = _Options.of({"mode": mode, **(options or {})})
    compiler, inputs = chosen.compiler, list(example_inputs)
    found = _first_fold(graph_module, inputs, chosen.folding)
    if found is None:
        return compiler(graph_module, inputs)
    folding, folded = found
    if _may_be_differentiated(graph_module, inputs):
        if folded.report and torch.is_grad_enabled():
            warnings.warn(DIFFERENTIATED.format(counted(len(folded.report.folded), "operation")), stacklevel=2)
        return compiler(graph_module, inputs)
    chosen.report(folded.report)
    if not folded.report:
        return compiler(graph_module, inputs)
    added = [_example(graph_module, tensor) for tensor in folded.tensors.values()]
    return Compiled(folding, folded.plan, compiler(folded.graph_module, [*inputs, *added]))


class _Options(NamedTuple):
    """The options of the backend, checked."""

    compiler: Callable[..., Any]
    report: Callable[[Report], object]
    folding: dict[str, Any]

    @staticmethod
    def of(options: Mapping[str, Any] | None) -> _Options:
        given = dict(options or {})
        inner = given.pop("backend", "inductor"), given.pop("mode", None), given.pop("options", None)
        compiler, report = _backend(*inner), given.pop("report", lambda _: None)
        unknown = sorted(given.keys() - {"rules", "allow_copies", "allow_growth", "guards"})
        if unknown or not callable(report):
            wrong = f"an unknown option {unknown[0]!r}" if unknown else f"report={report!r}, which is no function"
            raise FuseError(
                f"The backend 'fxfuse' got {wrong}; nothing was compiled. It takes 'backend', 'mode', 'options', "
                "'report', 'rules', 'allow_copies', 'allow_growth' and 'guards'."
            )
        if "rules" in given:
            given["rules"] = checked_rules(given["rules"])
        require_options(Options(**{"rules": (), **given}))
        return _Options(compiler, report, given)


def _backend(chosen: Any, mode: str | None, options: Mapping[str, Any] | None) -> Callable[..., Any]:
    """Return what compiles, as ``torch.compile`` makes it of the same arguments."""
    given = None if options is None else dict(options)
    if chosen == "inductor":
        try:
            return torch._TorchCompileInductorWrapper(mode, given, dynamic=None)
        except RuntimeError as error:
            raise FuseError(f"Inductor does not take mode={mode!r}, options={given!r} ({sentence(error)}).") from error
    try:
        return torch._TorchCompileWrapper(chosen, mode, given, dynamic=None)
    except Exception as error:
        all_known = set(torch._dynamo.list_backends(exclude_tags=())) - {"fxfuse"}
        known = ", ".join(sorted(name for name in all_known if "TESTING" not in name))
        raise FuseError(f"There is no backend {chosen!r} to hand the folded graph to; known are {known}.") from error


def _may_be_differentiated(graph_module: fx.GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether gradients may be asked for: they are on, or the graph turns them on."""
    turned_on = any(
        node.target is torch._C._set_grad_enabled and node.args[0] is not False for node in graph_module.graph.nodes
    )
    return (torch.is_grad_enabled() or turned_on) and any(isinstance(i, Tensor) and i.requires_grad for i in inputs)


def _first_fold(
    graph_module: fx.GraphModule, inputs: Sequence[Any], options: dict[str, Any]
) -> tuple[_Folding, _Folded] | None:
    """Return what folds a graph, and the result for its inputs; None where there are no constants.

    Plain attributes are constants only where more folds with them: each call compares their values, and a cache among
    them would have others each time.
    """
    best: tuple[_Folding, _Folded] | None = None
    for constants in _constants(graph_module, inputs):
        folding = _Folding(graph_module, tuple(constants), options)
        with contextlib.suppress(FuseError):
            folded = folding.folded(list(constants.values()))
            if best is None or len(folded.report.folded) > len(best[1].report.folded):
                best = folding, folded
    return best


def _constants(graph_module: fx.GraphModule, inputs: Sequence[Any]) -> list[dict[str, Tensor]]:
    """Return the inputs that are parameters and buffers, and these with all other tensors that modules hold."""
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    tensors = [pair for pair in zip(placeholders, inputs, strict=True) if isinstance(pair[1], Tensor)]
    held = {node.name: value for node, value in tensors if _comes_by(node, "NNModuleSource")}
    registered = {n.name: v for n, v in tensors if isinstance(v, nn.Parameter) or _comes_by(n, "ParamBufferSource")}
    found = [registered] if held.keys() <= registered.keys() else [registered, {**registered, **held}]
    # Nothing tells when a tensor of inference mode is written into.
    return [constants for constants in found if constants and not any(t.is_inference() for t in constants.values())]


def _comes_by(node: fx.Node, step: str) -> bool:
    """Whether Dynamo comes to an input by a step of a kind."""
    source = getattr(node.meta.get("grapharg"), "source", None)
    while source is not None and not type(source).__name__.endswith(step):
        source = getattr(source, "base", None)
    return source is not None


def _example(graph_module: fx.GraphModule, tensor: Tensor) -> Tensor:
    """Return a tensor as Dynamo would describe it to a backend: of a shape that never changes."""
    values = (node.meta.get("example_value") for node in graph_module.graph.nodes)
    mode = next((value.fake_mode for value in values if hasattr(value, "fake_mode")), None)
    return tensor if mode is None else mode.from_tensor(tensor, static_shapes=True)


class _Folded(NamedTuple):
    """A graph with the folded weights as further inputs."""

    graph_module: fx.GraphModule
    tensors: dict[str, Tensor]
    report: Report

    @property
    def plan(self) -> tuple[object, ...]:
        """What two folds have in common that differ in numbers alone: the code, and the shapes of the constants."""
        return (self.graph_module.code, [(path, tensor.shape) for path, tensor in self.tensors.items()])


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
        result = fx.GraphModule(self.graph_module, inputs_as_attributes(self.graph_module.graph, {}))
        with torch.no_grad():
            report = fuse_graph(result, dict(zip(self.names, constants, strict=True)), **self.options)
        return _Folded(result, _lift_new(result), report)


def _lift_new(graph_module: fx.GraphModule) -> dict[str, Tensor]:
    """Make inputs of the parameters that a fold has added, behind the others, and return them."""
    read = {
        str(node.target): fetch(graph_module, node.target) for node in graph_module.graph.nodes if node.op == "get_attr"
    }
    new = {path: value.detach() for path, value in read.items() if isinstance(value, nn.Parameter)}
    attributes_as_inputs(graph_module.graph, {path: f"folded_{number}" for number, path in enumerate(new, 1)})
    graph_module.recompile()
    return new


class Compiled:
    """What Dynamo calls: the compiled graph, with the folded weights of the parameters that come in."""

    def __init__(self, folding: _Folding, plan: object, compiled: Callable[..., Any]) -> None:
        """Keep what folds, how it folded when it was compiled, and what was compiled."""
        self.folding = folding
        self.plan = plan
        self.compiled = compiled
        self.known: list[tuple[Snapshot, list[Tensor] | None]] = []

    def __call__(self, *args: Any) -> Any:
        """Run the compiled graph, or the unfolded graph, if these parameters fold differently."""
        parameters = [args[position] for position in self.folding.positions]
        folded = next((folded for snapshot, folded in self.known if snapshot.holds(parameters)), _UNKNOWN)
        tensors = self._fold(parameters) if folded is _UNKNOWN else folded
        return self.folding.graph_module(*args) if tensors is None else self.compiled(*args, *tensors)

    def _fold(self, parameters: list[Tensor]) -> list[Tensor] | None:
        if any(parameter.is_inference() for parameter in parameters):
            return None
        try:
            folded = self.folding.folded(parameters)
        except FuseError:
            tensors = None
        else:
            tensors = list(folded.tensors.values()) if folded.plan == self.plan else None
        self.known = [(Snapshot(parameters), tensors), *self.known[: _CACHE_SIZE - 1]]
        return tensors


_UNKNOWN: Any = object()
