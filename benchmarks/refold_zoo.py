"""Fuse every model of the zoo with weights A, refold weights B, and compare bit for bit with fusing B.

B has the signs of A, so that the same folds are right.  Weights C have any signs: they give the same as fusing C, or an
error that says to fuse again.  The zoo: torchvision, the first model of each file of timm with at most 60 million
parameters, and the architectures of segmentation_models_pytorch.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import copy
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import nn

from fxfuse import FuseError, fx_fuse, refold
from fxfuse.cli import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_PARAMETERS = 60_000_000


def zoo() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Yield names, and what builds the models."""
    vision, timm, smp = map(models.need, ("torchvision.models", "timm", "segmentation_models_pytorch"))
    for module in (vision, vision.segmentation, vision.video, vision.detection):
        yield from ((name, models.find(name)) for name in vision.list_models(module=module))
    for file in sorted(timm.models.list_modules()):
        for name in timm.list_models(module=file):
            with torch.device("meta"), warnings.catch_warnings(action="ignore"):
                size = sum(p.numel() for p in timm.create_model(name).parameters())
            if size <= MOST_PARAMETERS:
                yield f"timm:{name}", models.find(f"timm:{name}")
                break
    names = "Unet UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet Segformer".split()
    yield from ((f"smp:{name}", partial(getattr(smp, name), "resnet18", encoder_weights=None)) for name in names)


def redrawn(model: nn.Module, *, signs: bool) -> nn.Module:
    """Return a copy with other weights: of the same signs, or of any."""
    made = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point():
                tensor.mul_(0.5 + torch.rand(tensor.shape, generator=draw))
                if not signs and not name.endswith("running_var"):
                    tensor.mul_((torch.rand(tensor.shape, generator=draw) < 0.9) * 2 - 1)
    return made


def verdict(model: nn.Module, **options: Any) -> str:
    """Say what became of weights of the same signs, and of others."""
    fused, found = fx_fuse(model, **options), list[str]()
    for signs in (True, False):
        retrained = redrawn(model, signs=signs)
        try:
            given = refold(copy.deepcopy(fused), retrained)
        except FuseError as error:
            found.append("told" if "would fold in another way" in str(error) else f"ERROR {error}")
        else:
            found.append("same" if _same(given, fx_fuse(retrained, **options)) else "DIFFERENT")
    return ", ".join(found)


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items() if isinstance(tensor, torch.Tensor)
    )


def main() -> None:
    """Print a line for each model, then the totals."""
    options = common.parse(common.parser(__doc__))
    named = ((name, models.find(name)) for name in options.models) if options.models else zoo()
    counts = Counter[str]()
    for name, factory in named:
        model = models.build(name, factory)
        models.randomize(model)
        found = verdict(model)
        counts[found] += 1
        print(f"{name}: {found}", flush=True)
    print(f"\n{counts.total()} models (the same signs, others): {dict(counts)}")


if __name__ == "__main__":
    main()
