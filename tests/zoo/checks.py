"""What must hold of every model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse import Report, fx_fuse
from fxfuse.modules.kernels import count_kernels
from tests.support.helpers import STRUCTURES, Structure, trained


def trained32(model: nn.Module) -> nn.Module:
    """The model in float32 and evaluation mode, with norms far from fresh ones."""
    return trained(model).float()


def norms_left(model: nn.Module, *inputs: Any) -> int:
    """How many batch norms run, in whatever form the model has them."""
    kernels = count_kernels(lambda _: model(*inputs), torch.empty(0))
    return sum(count for name, count in kernels.items() if "batch_norm" in name)


def count_norms(model: nn.Module) -> int:
    """How many modules keep running statistics."""
    return sum(getattr(module, "running_var", None) is not None for module in model.modules())


def error(expected: Any, given: Any) -> float:
    """The largest difference of two outputs, relative to the largest value of each tensor."""
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(given), strict=True)
    gaps = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in pairs if isinstance(a, Tensor)]
    return max(gaps)


def assert_all_is_well(
    model: nn.Module, x: Tensor, stays: int, *, structures: tuple[Structure, ...] = STRUCTURES, tolerance: float = 1e-10
) -> None:
    """Every structure folds the same, all that can be, and gives what the model gives; a module keeps its class.

    What merges in a graph may stay in a class, whose layers keep the sizes that they note of themselves.
    """
    # In float32, rounding in a deep model with random weights can be as large as a fault.
    model, x = model.double(), x.double()
    with torch.no_grad():
        expected = model(x)
    folds = []
    for structure in structures:
        fused = fx_fuse(model, structure=structure)
        with torch.no_grad():
            assert error(expected, fused(x)) <= tolerance
        assert norms_left(fused, x) == stays, str(Report.of(fused))
        folds.append({d.path for d in Report.of(fused).folded if not d.rule.startswith("merge_")})
        assert structure == "graph" or isinstance(fused, type(model))
    assert all(found == folds[0] for found in folds)
