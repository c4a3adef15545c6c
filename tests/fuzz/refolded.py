"""Other weights in a random model: refold gives what fusing again gives, or says why not."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse import FuseError, fx_fuse, refold
from tests.fuzz.build import REFUSED, built
from tests.fuzz.properties import Broken, options

if TYPE_CHECKING:
    from tests.fuzz.recipes import Recipe

TOLD = ("would fold in another way", "not finite", "carries no plan", "could not be recorded")


def check_refold(recipe: Recipe) -> Counter[str]:
    """Fuse a model, give it other weights, and compare every bit; say what was met."""
    made = built(recipe)
    given: dict[str, Any] = {**options(recipe, made.x), "structure": "module" if recipe.structure == "module" else None}
    model = copy.deepcopy(made.model)
    others = [redrawn(model, flips) for flips in (0.0, 0.3)]
    try:
        fused, again = fx_fuse(model, **given), [fx_fuse(other, **given) for other in others]
    except (FuseError, *REFUSED) as error:
        return Counter({f"not fused: {type(error).__name__}": 1})
    found = Counter[str]()
    for other, expected in zip(others, again, strict=True):
        before = copy.deepcopy(fused.state_dict())
        try:
            result = refold(copy.deepcopy(fused), other)
        except FuseError as error:
            if not any(told in str(error) for told in TOLD):
                raise Broken("an error of another kind", error) from error
            found["told"] += 1
        else:
            difference = first_difference(result.state_dict(), expected.state_dict())
            if difference:
                raise Broken("refold differs from fusing again", difference)
            found["the same"] += 1
        if first_difference(fused.state_dict(), before):
            raise Broken("something else changed", before.keys())
    return found


def redrawn(model: nn.Module, flips: float) -> nn.Module:
    """A copy with other weights; a part of all elements changes the sign."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point() and not tensor.is_meta and tensor.layout is torch.strided:
                tensor.mul_(0.5 + torch.rand(tensor.shape).to(tensor))
                if not name.endswith("running_var"):
                    tensor.mul_((torch.rand(tensor.shape).to(tensor) >= flips) * 2 - 1)
    return made


def first_difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Names, or bits, that differ."""
    if one.keys() != other.keys():
        return f"names {one.keys() ^ other.keys()}"
    return next((name for name, tensor in one.items() if _differ(tensor, other[name])), "")


def _differ(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and not torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
