"""``lower`` and its checks."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

from fxfuse.lowering.module import LoweredModule
from fxfuse.modules.comparison import agree, difference
from fxfuse.modules.example_inputs import Inputs, reference, untouched
from fxfuse.report.errors import FuseError, out_of_memory, sentence


def lowered(fused: Any, example_inputs: Any, *, exact_nan: bool, emitter: Any = None) -> LoweredModule:
    """Return a fused model with its kernels; see ``fxfuse.lower``."""
    name, advice = type(fused).__name__, "Use the fused model as it is, and please report it."
    fused = fused.fused if isinstance(fused, LoweredModule) else fused
    if not isinstance(fused, fx.GraphModule):
        raise FuseError(
            f"lower takes the GraphModule that fx_fuse returned, and got {name}; nothing was changed. Fuse with "
            "structure='graph' where the model can be traced as a whole; of an ExportedProgram, pass program.module()."
        )
    try:
        result = LoweredModule(_separate(fused), exact_nan=exact_nan, emitter=emitter)
        result._current()
    except Exception as error:
        if out_of_memory(error):
            raise
        raise FuseError(f"{name} could not be lowered ({sentence(error)}); nothing was changed. {advice}") from error
    gap = 0.0 if example_inputs is None else _gap(result, fused, Inputs.of(example_inputs))
    if gap:
        raise FuseError(
            f"The lowered {name} differs from the fused one on the example inputs (relative error {gap:.1e}); nothing "
            f"was changed. {advice}"
        )
    return result


def _separate(fused: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that shares all tensors, so that converting either leaves the other as it is."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in fused.buffers()}
    for parameter in fused.parameters():
        memo[id(parameter)] = parameter
        if type(parameter) is nn.Parameter:
            own = memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
            own.__dict__.update(parameter.__dict__)
    return copy.deepcopy(fused, memo)


def _gap(result: LoweredModule, fused: fx.GraphModule, inputs: Inputs) -> float:
    """Return by how much the lowered model differs from the fused one, 0 for rounding; packs the weights.

    Raises:
        FuseError: if the model raises.
    """
    expected = reference(fused, inputs)
    given = None
    for _ in range(2):  # in the first run it learns in which order results lie
        with untouched(result.fused):
            given = inputs.call(result)
    same = agree(expected, given, [*fused.parameters(), *fused.buffers()])
    return 0.0 if same else difference(expected, given)
