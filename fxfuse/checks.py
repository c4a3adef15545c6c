"""What cannot be fused at all, said in one sentence before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from fxfuse.engine import keeps_statistics
from fxfuse.report import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterator


def require_fusable(model: Any, structure: str | None, *, inplace: bool) -> None:  # noqa: ANN401 - checked here
    """Raise for an argument that no part of the pass could do anything with.

    Raises:
        FuseError: a sentence with the offending value and what to do.
    """
    for problem in _problems(model, structure, inplace):
        raise FuseError(f"{problem} Nothing was changed.")


def _problems(model: Any, structure: str | None, inplace: bool) -> Iterator[str]:  # noqa: ANN401, FBT001 - private
    if not isinstance(model, nn.Module):
        yield f"fx_fuse takes a torch.nn.Module, and got {type(model).__name__}; pass the model itself."
        return
    if isinstance(model, torch.jit.ScriptModule):
        yield f"{type(model).__name__} is a scripted module; fuse the model before you script or trace it."
    if structure not in (None, "graph", "module"):
        yield f"structure={structure!r} is not known; pass 'graph', 'module', or leave it out."
    if inplace and not isinstance(model, fx.GraphModule):
        yield (
            f"inplace=True changes a torch.fx.GraphModule, and got {type(model).__name__}; leave it out, "
            "the result shares all weights that are not folded."
        )
    if inplace and structure == "module":
        yield "inplace=True gives back the GraphModule it got; leave structure out."
    tensors = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        yield f"{lazy[0]} is not initialised yet; run the model once before fusing, so that lazy modules get their sizes."
    elif tensors and all(tensor.is_meta for _, tensor in tensors):
        yield f"{tensors[0][0]} and all other tensors are on the meta device and have no values; load the weights first."
    norms = [(name, module) for name, module in model.named_modules() if keeps_statistics(module)]
    if norms and all(module.training for _, module in norms):
        yield (
            f"{norms[0][0] or type(model).__name__} and every other norm of the model is in training mode, where it uses the "
            "statistics of each batch; call model.eval() first."
        )
