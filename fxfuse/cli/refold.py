"""New weights, put through a saved plan from one file into another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.checkpoints.files import read_weights, write_weights
from fxfuse.checkpoints.plan import Plan
from fxfuse.cli.terminal import steps

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def refold(plan_file: Path, weights: Path, output: Path) -> int:
    """Write the weights of the fused model, and return how many tensors there are.

    Args:
        plan_file: what ``Plan.save`` wrote.
        weights: of the original model, read one by one.
        output: where to write; ``.safetensors``, or anything else for ``torch.save``.

    Raises:
        FuseError: if one of the files cannot be used; the output is then what it was.
    """
    plan, state = Plan.load(plan_file), read_weights(weights)
    made: dict[str, Tensor] = {}
    with steps("refold", len(plan.outputs)) as step:
        for name, tensor in plan.stream(state):
            step(name)
            made[name] = tensor
    write_weights(output, {name: made[name] for name in plan.outputs})
    return len(made)
