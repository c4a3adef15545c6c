"""The forms in which a model can reach the pass: one small class for each, and what comes back, alike for all."""

from __future__ import annotations

import contextlib
import copy
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from fxfuse import Report, fuse_graph, fx_fuse
from tests.operators.calls import Code
from tests.support.graph_reading import count_norms
from tests.support.helpers import run, unchanged
from tests.support.samples import graph_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.export import ExportedProgram

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Fused:
    """What a form gives back.

    Attributes:
        report: what was done.
        graph_module: the graph, to be read.
        call: runs it.
        result: what the pass returned: a GraphModule or an ExportedProgram.
    """

    report: Report
    graph_module: fx.GraphModule
    call: Callable[..., Any]
    result: Any

    def run(self, *inputs: Any) -> Any:
        """What it gives for copies of the inputs."""
        return run(Code(self.call), inputs)

    @property
    def text(self) -> str:
        """The graph, a line for each node."""
        return graph_text(self.graph_module)

    @property
    def count_norms(self) -> int:
        """How many nodes normalise."""
        return count_norms(self.graph_module)

    @property
    def folds(self) -> int:
        """How many operations are gone; computing a constant removes none."""
        return sum(decision.rule == "fold_upstream" for decision in self.report.folded)


class Form:
    """A form of graph: how a model gets into it, and how it is fused there."""

    name: ClassVar[str]
    shapes_are_known: ClassVar[bool] = True
    """Whether a graph of this form says what shape every value has."""

    def fuse(self, model: nn.Module, inputs: Inputs, **options: Any) -> Fused:
        """Bring the model into this form and fuse it; the tensors of the model are what they were afterwards."""
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fused = self._fuse(model, inputs, options)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return fused

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        raise NotImplementedError


class Traced(Form):
    """``torch.fx.symbolic_trace``: modules, functions and methods."""

    name = "traced"
    shapes_are_known = False

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        del inputs
        with unchanged(model):
            fused: Any = fx_fuse(model, structure="graph", **options)
        return Fused(Report.of(fused), fused, fused, fused)


class Exported(Form):
    """``torch.export.export(...).module()``: ATen with the functions that have a derivative."""

    name = "exported"

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        graph_module = self.program(model, inputs).module()
        with unchanged(graph_module):
            fused: Any = fx_fuse(graph_module, **options)
        return Fused(Report.of(fused), fused, fused, fused)

    def program(self, model: nn.Module, inputs: Inputs) -> ExportedProgram:
        """The program, exported once in a session."""
        return programs(model, inputs)[0]


class CoreAten(Exported):
    """The same after ``run_decompositions()``."""

    name = "core_aten"

    def program(self, model: nn.Module, inputs: Inputs) -> ExportedProgram:
        """The decomposed program, made once in a session."""
        return programs(model, inputs, decomposed=True)[1]


class Program(Exported):
    """An ``ExportedProgram`` itself: parameters are inputs, and a signature names them."""

    name = "program"

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        program = self.program(model, inputs)
        with untouched(program):
            fused = fx_fuse(program, **options)
        return Fused(Report.of(fused), fused.graph_module, fused.module(), fused)


@contextlib.contextmanager
def untouched(program: ExportedProgram) -> Iterator[None]:
    """Inside of the block nothing about the program changes: graph, signature, tensors, constraints."""
    before = _described(program)
    yield
    assert _described(program) == before


def _described(program: ExportedProgram) -> list[Any]:
    tensors = {**program.state_dict, **program.constants}
    return [
        # torch's verifier generates the code of conditional parts once more, so that its text is compared.
        [(name, id(m), str(m.graph), m.code) for name, m in program.graph_module.named_modules() if _is_graph(m)],
        repr(program.graph_signature),
        {name: (id(value), value.clone().tolist()) for name, value in tensors.items() if isinstance(value, Tensor)},
        [*program.state_dict],
        [*program.constants],
        str(program.range_constraints),
        repr(program.module_call_graph),
    ]


def _is_graph(module: nn.Module) -> TypeGuard[fx.GraphModule]:
    return isinstance(module, fx.GraphModule)


class CoreProgram(CoreAten, Program):
    """A decomposed ``ExportedProgram``."""

    name = "core_program"
    _fuse = Program._fuse


class Dynamo(Form):
    """What ``torch.compile`` hands to a backend, with parameters as inputs."""

    name = "dynamo"

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        model = copy.deepcopy(model)  # it is run while it is captured, and may change its buffers
        graphs: list[fx.GraphModule] = []
        held = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}

        def backend(graph_module: fx.GraphModule, passed: list[Any]) -> Callable[..., Any]:
            placeholders = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
            named = zip(placeholders, passed, strict=True)
            fuse_graph(graph_module, {name: value for name, value in named if id(value) in held}, **options)
            graphs.append(graph_module)
            return graph_module.forward

        torch._dynamo.reset()
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        run(Code(compiled), inputs)
        (graph_module,) = graphs
        return Fused(Report.of(graph_module), graph_module, compiled, graph_module)


class Made(Form):
    """``make_fx`` of a function of the parameters: they are inputs, and nothing says what they are."""

    name = "made"

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        graph_module, state = made(copy.deepcopy(model), inputs)
        names = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
        report = fuse_graph(graph_module, dict(zip(names, state.values(), strict=False)), **options)
        return Fused(report, graph_module, lambda *args: graph_module(state, *args), graph_module)


def made(model: nn.Module, inputs: Inputs) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    """The graph of a model as a function of its state, with the parameters as the first inputs; and the state."""
    state: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def function(state: dict[str, Tensor], *args: Any) -> Any:
        return torch.func.functional_call(model, state, args)

    with torch.no_grad():
        return make_fx(function)(state, *_copies(inputs)), state


FORMS: dict[str, Form] = {
    form.name: form for form in (Traced(), Exported(), CoreAten(), Program(), CoreProgram(), Dynamo(), Made())
}
EXPORTED_FORMS = ("exported", "core_aten", "program", "core_program")


# -- torch.export takes a tenth of a second and more, so that each model is exported once


_PROGRAMS: weakref.WeakKeyDictionary[nn.Module, dict[Any, list[ExportedProgram]]] = weakref.WeakKeyDictionary()


def programs(model: nn.Module, inputs: Inputs, *, decomposed: bool = False) -> list[ExportedProgram]:
    """The program of a model and, where that was asked for, its decomposition."""
    described = tuple((i.shape, i.dtype) if isinstance(i, Tensor) else i for i in inputs)
    found = _PROGRAMS.setdefault(model, {}).setdefault(described, [])
    if not found:
        found.append(torch.export.export(model, _copies(inputs)))
    if decomposed and len(found) == 1:
        found.append(found[0].run_decompositions())
    return found


def _copies(inputs: Inputs) -> Inputs:
    return tuple(i.clone() if isinstance(i, Tensor) else i for i in inputs)
