"""What the tests of exported programs share."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxfuse import Report, fx_fuse
from tests.support.graph_forms import programs, untouched
from tests.support.helpers import assert_equal, run

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def program(model: nn.Module, *inputs: Any, decomposed: bool = False) -> ExportedProgram:
    return programs(model, inputs, decomposed=decomposed)[decomposed]


def fused(given: ExportedProgram, **options: Any) -> ExportedProgram:
    """Fuse; the argument is untouched."""
    with untouched(given):
        result: ExportedProgram = fx_fuse(given, **options)
    return result


def assert_program_fuses(
    model: nn.Module, *inputs: Any, folds: int, decomposed: bool = False, **options: Any
) -> ExportedProgram:
    """So many norms go, the program gives what the model gives, and a second pass finds nothing."""
    result = fused(program(model, *inputs, decomposed=decomposed), **options)
    assert len(Report.of(result).folded) == folds, str(Report.of(result))
    assert_equal(run(model, inputs), run(result.module(), inputs))
    again = fused(result, **options)
    assert not Report.of(again).folded
    assert str(again.graph_signature) == str(result.graph_signature)
    assert str(again.graph) == str(result.graph)
    return result


def names(result: ExportedProgram) -> dict[str, Any]:
    """What the signature calls parameters, buffers and constants."""
    signature = result.graph_signature
    return {
        "parameters": list(signature.parameters),
        "buffers": list(signature.buffers),
        "constants": list(signature.lifted_tensor_constants),
        "state": list(result.state_dict),
    }


def saved_and_loaded(result: ExportedProgram) -> ExportedProgram:
    buffer = io.BytesIO()
    torch.export.save(result, buffer)
    buffer.seek(0)
    return torch.export.load(buffer)
