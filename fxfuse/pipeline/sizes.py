"""How large a model and its result are."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse.capture.exported_program import runnable
from fxfuse.modules.example_inputs import Inputs
from fxfuse.modules.kernels import run_counted
from fxfuse.report.report import Report
from fxfuse.report.size import Size

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def sized_report(
    model: nn.Module | ExportedProgram, result: nn.Module | ExportedProgram, example_inputs: Any
) -> Report:
    """Return the report of a result with the sizes of both; with example inputs, both are run once more."""
    call = None if example_inputs is None else Inputs.calls_of(example_inputs)[0]
    return replace(Report.of(result), sizes=(_size(model, call), _size(result, call)))


def _size(model: nn.Module | ExportedProgram, call: Inputs | None) -> Size:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    leaves = [m for m in modules if not m._modules and type(m) not in (nn.Module, nn.Identity)]
    layers = len(leaves) if isinstance(model, nn.Module) else None
    size = Size(layers, sum(parameter.numel() for parameter in model.parameters()))
    if call is None:
        return size
    with contextlib.suppress(Exception):  # whatever a counting mode does not take, the report is there without
        flops, kernels = run_counted(runnable(model), call)
        return replace(size, flops=flops, norms=kernels.norms, kernels=kernels.total)
    return size
