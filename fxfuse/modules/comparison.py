"""How far results are from one another, and whether that is more than rounding."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from fxfuse.modules.example_inputs import Inputs, untouched
from fxfuse.modules.lookup import tensor_paths

# What the rounding of a deep model in each dtype can make of an exact fold, relative to the largest output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


def amplifies_rounding(model: nn.Module, inputs: Inputs, expected: Any) -> bool:
    """Whether a model gives another result where its inputs and weights change by no more than rounding.

    A model that selects (the best boxes, say) can select others then, so that no comparison of results says anything.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            return value
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return (value.detach() * (1 + 8 * torch.finfo(value.dtype).eps * noise.to(value.device))).to(value.dtype)

    for _ in range(3):
        args, kwargs = pytree.tree_map(moved, (inputs.args, inputs.kwargs))
        weights = {name: moved(tensor) for tensor, name in tensor_paths(model)}
        with untouched(model), torch.no_grad():
            given = functional_call(model, weights, args, kwargs, strict=False)
        if not agree(expected, given, weights.values()):
            return True
    return False


def difference(one: Any, other: Any) -> float:
    """Return the largest relative difference of two outputs, infinite where their structure differs."""
    one, other = _thawed(one), _thawed(other)
    firsts, seconds = leaves(one), leaves(other)
    if len(firsts) != len(seconds) or pytree.tree_structure(one) != pytree.tree_structure(other):
        return math.inf
    ratios = [_ratio(a, b) for a, b in zip(firsts, seconds, strict=True)]
    return sys.float_info.max if any(map(math.isnan, ratios)) else max(ratios, default=0.0)


def _thawed(output: Any) -> Any:
    """Return an output with plain lists and dictionaries; an interpreter of graphs gives immutable ones."""
    if type(output) in (list, immutable_list):
        return [_thawed(item) for item in output]
    if type(output) in (dict, immutable_dict):
        return {key: _thawed(value) for key, value in output.items()}
    return tuple(map(_thawed, output)) if type(output) is tuple else output


def agree(expected: Any, given: Any, weights: Iterable[Tensor] = ()) -> bool:
    """Whether two outputs are the same but for rounding.

    Args:
        expected: what is compared with.
        given: what is compared.
        weights: what they were computed with; a part of a model may be of a narrower dtype than its output.
    """
    tensors = [leaf for leaf in (*leaves(expected), *weights) if isinstance(leaf, Tensor)]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    tolerance = max((TOLERANCE.get(dtype, 1e-3) for dtype in dtypes), default=0.0)
    return difference(expected, given) <= tolerance


def leaves(output: Any) -> list[Any]:
    """Return the tensors and plain values of an output, in order; dataclasses are opened too."""
    found: list[Any] = []
    for leaf in pytree.tree_leaves(output):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += [type(leaf), *leaves([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])]
        elif isinstance(leaf, Mapping):
            found += [type(leaf), *leaf, *leaves(list(leaf.values()))]
        else:
            found.append(leaf)
    return found


def alike(one: Any, other: Any) -> bool:
    """Whether two outputs have the same structure, and tensors of the same shapes and dtypes."""
    return difference(one, other) < math.inf


def _ratio(one: Any, other: Any) -> float:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        same = type(one) is type(other) and (not isinstance(one, (int, float, str, bool, type)) or one == other)
        return 0.0 if same else math.inf
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    return min(gap(one, other) / largest(one), sys.float_info.max)


def gap(one: Tensor, other: Tensor) -> float:
    """Return the largest absolute difference of two tensors; NaN or infinity at the same places are equal."""
    if not one.numel():
        return 0.0
    a, b = one.detach().to(_wide(one)), other.detach().to(_wide(one))
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, torch.zeros_like(a), a - b).abs().max())


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def largest(tensor: Tensor) -> float:
    """Return the largest absolute finite value of a tensor, or a tiny number if there is none."""
    tiny = sys.float_info.min
    return (
        max(float(tensor.detach().to(_wide(tensor)).abs().nan_to_num(0.0, 0.0, 0.0).max()), tiny)
        if tensor.numel()
        else tiny
    )
