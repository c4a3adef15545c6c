"""``lower`` and its checks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from fxfuse.lowering.cpu import CpuEmitter
from fxfuse.lowering.module import LoweredModule
from fxfuse.lowering.parts import FEW, with_lowered_parts
from fxfuse.modules.comparison import agree, difference
from fxfuse.modules.example_inputs import Inputs, reference, untouched
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.write_back.copies import renew_parameters


def lowered(fused: Any, example_inputs: Any, *, exact_nan: bool, emitter: Any = None) -> Any:
    """Return a fused model with its kernels; see ``fxfuse.lower``."""
    name, advice = type(fused).__name__, "Use the fused model as it is, and please report it."
    fused = fused.fused if isinstance(fused, LoweredModule) else fused
    if not isinstance(fused, nn.Module):
        raise FuseError(
            f"lower takes the model that fx_fuse returned, and got {name}; nothing was changed. Of an ExportedProgram, "
            "pass program.module()."
        )
    emitter = emitter or CpuEmitter(exact_nan=exact_nan)
    lower: Any = _lower_graph if isinstance(fused, fx.GraphModule) else with_lowered_parts
    try:
        result = lower(fused, emitter)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise FuseError(f"{name} could not be lowered ({sentence(error)}); nothing was changed. {advice}") from error
    if result is None:
        raise FuseError(
            f"lower found no part of {name} that can be traced and has {FEW} layers or more; nothing was changed. "
            "Pass what fx_fuse returned, or use that as it is."
        )
    gap = 0.0 if example_inputs is None else _gap(result, fused, Inputs.of(example_inputs))
    if gap:
        raise FuseError(
            f"The lowered {name} differs from the fused one on the example inputs (relative error {gap:.1e}); nothing "
            f"was changed. {advice}"
        )
    return result


def _lower_graph(fused: fx.GraphModule, emitter: Any) -> LoweredModule:
    """Return a lowered copy that shares all tensors, so that converting either leaves the other as it is."""
    scripted = (module for module in fused.modules() if isinstance(module, torch.jit.ScriptModule))  # lives in C++
    shared: Any = {id(kept): kept for kept in (*fused.parameters(), *fused.buffers(), *scripted)}
    copied = copy.deepcopy(fused, shared)
    renew_parameters(copied)
    result = LoweredModule(copied, emitter)
    result._runner.current()
    return result


def _gap(result: nn.Module, fused: nn.Module, inputs: Inputs) -> float:
    """Return by how much the lowered model differs from the fused one, 0 for rounding; packs the weights.

    Raises:
        FuseError: if the model raises.
    """
    expected = reference(fused, inputs)
    given = None
    for _ in range(2):  # in the first run it learns in which order results lie
        with untouched(result):
            given = inputs.call(result)
    same = agree(expected, given, [*fused.parameters(), *fused.buffers()])
    return 0.0 if same else difference(expected, given)
