"""How many norms each model of the zoo has, and what the pass makes of them.

``python -m tests.zoo.counts`` writes ``counts.json`` anew; the difference is for a reviewer to see.
"""

from __future__ import annotations

import json
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fxfuse import FuseError, Report, fx_fuse
from fxfuse.cli.models import randomize
from tests.support.helpers import STRUCTURES, Structure
from tests.zoo import small_transformers
from tests.zoo.checks import count_norms

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

FILE = Path(__file__).parent / "counts.json"

CLASSIFIERS = (
    "densenet121 efficientnet_b0 googlenet inception_v3 mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_y_400mf "
    "resnet18 resnet50 shufflenet_v2_x0_5 squeezenet1_0 swin_t vgg11_bn"
).split()
SEGMENTATION = "deeplabv3_mobilenet_v3_large fcn_resnet50 lraspp_mobilenet_v3_large".split()
DETECTION = "fasterrcnn_mobilenet_v3_large_320_fpn ssdlite320_mobilenet_v3_large retinanet_resnet50_fpn_v2".split()
VIDEO = "r3d_18 r2plus1d_18 s3d".split()
TIMM = (
    "cspresnet50 dla34 edgenext_xx_small efficientformer_l1 efficientvit_b0 fastvit_t8 ghostnet_100 hrnet_w18_small "
    "levit_128s lcnet_050 mixnet_s mobileone_s0 mobilevit_s mobilevitv2_050 nfnet_l0 repvgg_a0 res2net50_26w_4s "
    "rexnet_100 selecsls42 skresnet18 tinynet_e tiny_vit_5m_224 visformer_tiny xcit_nano_12_p16_224"
).split()
SMP = "Unet UnetPlusPlus Linknet FPN PSPNet PAN DeepLabV3Plus UPerNet".split()


def builders() -> dict[str, Callable[[], nn.Module]]:
    """A function for each model, by name; all weights are random."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name in (*CLASSIFIERS, *VIDEO):
        found[f"torchvision/{name}"] = partial(_torchvision, name)
    for name in (*SEGMENTATION, *DETECTION):
        found[f"torchvision/{name}"] = partial(_torchvision, name, weights_backbone=None)
    for name in TIMM:
        found[f"timm/{name}"] = partial(_timm, name)
    for name in SMP:
        found[f"smp/{name}"] = partial(_smp, name)
    return {**found, **small_transformers.builders()}


def _torchvision(name: str, **options: Any) -> nn.Module:
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = import_module("torchvision.models").get_model(name, weights=None, **options, **more)
    return model


def _timm(name: str) -> nn.Module:
    model: nn.Module = import_module("timm").create_model(name, pretrained=False)
    return model


def _smp(name: str) -> nn.Module:
    model: nn.Module = getattr(import_module("segmentation_models_pytorch"), name)("resnet18", encoder_weights=None)
    return model


def counted(name: str) -> dict[str, Any]:
    """How many norms a model has, and for each structure how many are left, and how much folds and merges."""
    torch.manual_seed(0)
    model = builders()[name]().eval()
    randomize(model)
    return {"norms": count_norms(model), **{structure: _counted(model, structure) for structure in STRUCTURES}}


def _counted(model: nn.Module, structure: Structure) -> dict[str, int] | None:
    """The counts for one structure; None if the model cannot be traced as a whole, which a graph needs."""
    try:
        fused = fx_fuse(model, structure=structure)
    except FuseError as error:
        if structure == "graph" and "cannot be traced as a whole" in str(error):
            return None
        raise
    folded = Report.of(fused).folded
    merges = sum(decision.rule.startswith("merge_") for decision in folded)
    return {"left": count_norms(fused), "folds": len(folded) - merges, "merges": merges}


def stored() -> dict[str, Any]:
    """The counts that were written last."""
    counts: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return counts


def write() -> None:
    """Write the counts of all models, a line for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = [f"{json.dumps(name)}: {json.dumps(counted(name))}" for name in builders()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
