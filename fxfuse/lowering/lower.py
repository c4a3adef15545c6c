"""``lower`` and its checks."""

from __future__ import annotations

import copy
from typing import Any


from torch import fx, nn
from torch.export import ExportedProgram

from fxfuse.lowering.module import LoweredModule
from fxfuse.modules.example_inputs import Inputs, agree, difference, reference, untouched
from fxfuse.report.errors import FuseError, out_of_memory, sentence


def lowered(fused: Any, example_inputs: Any, *, exact_nan: bool, emitter: Any = None) -> LoweredModule:
    """Return a fused model with its kernels; see ``fxfuse.lower``."""
    graph_module = _graph_of(fused)
    try:
        result = LoweredModule(_separate(graph_module), exact_nan=exact_nan, emitter=emitter)
        result._current()
    except Exception as error:
        if out_of_memory(error):
            raise
        raise FuseError(
            f"{type(fused).__name__} could not be lowered ({sentence(error)}); nothing was changed. Use the fused "
            "model as it is, and please report it."
        ) from error
    if example_inputs is not None:
        _check(result, graph_module, Inputs.of(example_inputs))
    return result


def _graph_of(fused: Any) -> fx.GraphModule:
    """Return the graph that is lowered.

    Raises:
        FuseError: if there is none.
    """
    if isinstance(fused, LoweredModule):
        return fused.fused
    if isinstance(fused, ExportedProgram):
        raise FuseError("lower takes a module, and got an ExportedProgram; pass program.module(). Nothing was changed.")
    if not isinstance(fused, nn.Module):
        raise FuseError(
            f"lower takes what fx_fuse returned, and got {type(fused).__name__}; pass the fused model. Nothing was "
            "changed."
        )
    if not isinstance(fused, fx.GraphModule):
        raise FuseError(
            f"lower takes a GraphModule, and got {type(fused).__name__}, which keeps its class; fuse it with "
            "structure='graph' if it can be traced as a whole. Nothing was changed."
        )
    return fused


def _separate(fused: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that shares all tensors, so that converting either leaves the other as it is."""
    memo: dict[int, Any] = {}
    for parameter in fused.parameters():
        own = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        own.__dict__.update(parameter.__dict__)
        memo[id(parameter)] = own if type(parameter) is nn.Parameter else parameter
    memo |= {id(buffer): buffer for buffer in fused.buffers()}
    return copy.deepcopy(fused, memo)


def _check(result: LoweredModule, fused: fx.GraphModule, inputs: Inputs) -> None:
    """Compare the lowered model with the fused one, and pack the weights for the size of the inputs.

    Raises:
        FuseError: if they differ, or the model raises.
    """
    expected = reference(fused, inputs)
    with untouched(result.fused):
        inputs.call(result)  # it learns in which order results lie
    with untouched(result.fused):
        given = inputs.call(result)
    if not agree(expected, given, [*fused.parameters(), *fused.buffers()]):
        raise FuseError(
            f"The lowered {type(fused).__name__} differs from the fused one on the example inputs (relative error "
            f"{difference(expected, given):.1e}), so nothing was changed. Use the fused model as it is, and please "
            "report it."
        )
