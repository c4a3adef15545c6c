"""Exported programs: read as graphs that hold their parameters, and put together again after the edits.

The graph of an ``ExportedProgram`` takes parameters, buffers and constants as inputs, and a signature says which is
which.  What the signature, the state and the graph say has to agree, which torch's own verifier checks at the end.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    InputKind,
    InputSpec,
    OutputKind,
)

from fxfuse.capture.captured import Capture, Part
from fxfuse.capture.lifted import holder_of, inputs_as_attributes
from fxfuse.capture.regions import regions_in
from fxfuse.graph.lazy_graph_module import Draft

_CONSTANT = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_MUTATION = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)


def capture_program(program: ExportedProgram) -> Capture:
    """Take the graph of a program, with its parameters as attributes of modules that hold them under their names."""
    holder = holder_of(_tensors(program))
    holder._modules |= {n: m for n, m in program.graph_module._modules.items() if n not in holder._modules}
    paths = {spec.arg.name: str(spec.target) for spec in _constant_specs(program)}
    parts = [Part(holder, "", Draft(holder, inputs_as_attributes(program.graph, paths), "ExportedProgram"))]
    for number, part in enumerate(parts):  # to which it adds: regions can be in regions
        parts += regions_in(number, part)
    return Capture(holder, parts, program=program)


def _constant_specs(program: ExportedProgram) -> list[InputSpec]:
    """Return the inputs that are the same at every call; what the program writes into is not."""
    written = {s.target for s in program.graph_signature.output_specs if s.kind in _MUTATION}
    specs = [s for s in program.graph_signature.input_specs if s.kind in _CONSTANT and s.target not in written]
    return [s for s in specs if isinstance(_tensor(program, s), Tensor)]


def _tensor(program: ExportedProgram, spec: InputSpec) -> Any:
    return program.state_dict.get(str(spec.target), program.constants.get(str(spec.target)))


def _tensors(program: ExportedProgram) -> dict[str, Tensor]:
    return {str(spec.target): _tensor(program, spec) for spec in _constant_specs(program)}


def runnable(model: nn.Module | ExportedProgram) -> nn.Module:
    """Return something that can be called: the model, or the module that runs the program."""
    return model.module() if isinstance(model, ExportedProgram) else model
