"""Detectors that cannot be traced: with example inputs they fold as far as their own library's code folds them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from fxfuse import fx_fuse
from fxfuse.cli.models import randomize
from fxfuse.modules.kernels import Kernels

pytestmark = pytest.mark.slow
tasks: Any = pytest.importorskip("ultralytics.nn.tasks")

NAMES = (
    "yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov8n-pose yolov8-ghost yolov9t yolov9c yolov10n yolo11n "
    "yolo11n-obb yolo12n yolo26n"
).split()
CLASSES = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}
# Their own fuse() also removes a head of which the model returns the results.
LOSE_A_HEAD = {"yolov10n": 24, "yolo26n": 24}


def tensors(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(model(x)) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", NAMES)
def test_yolo_folds_as_its_own_code_does(name: str) -> None:
    torch.manual_seed(0)
    cls = getattr(tasks, CLASSES.get(name.rpartition("-")[2], "DetectionModel"))
    model = cls(f"{name}.yaml", verbose=False)
    randomize(model)
    model, x = model.double().eval(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fused = fx_fuse(model, x)
    given, own = Kernels.of(fused, x), Kernels.of(copy.deepcopy(model).fuse(verbose=False), x)
    assert given.norms == own.norms == 0
    assert given.convolutions <= own.convolutions + LOSE_A_HEAD.get(name, 0)
    for one, other in zip(tensors(model, x), tensors(fused, x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)
