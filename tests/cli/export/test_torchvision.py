"""Classifiers of torchvision as files: no batch norm is left, and onnxruntime agrees with the model."""

from __future__ import annotations

import pytest
import torch

from fxfuse.cli import models
from fxfuse.cli.main import main
from tests.cli.export.checks import onnx_nodes, onnx_outputs, operators
from tests.support.helpers import assert_equal, run

for package in ("torchvision", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

FAMILIES = "efficientnet_b0 mobilenet_v3_small regnet_y_400mf resnet18 shufflenet_v2_x0_5".split()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_classifiers(name: str) -> None:
    options = ["--input-shape", "2,3,64,64", "--verify"]
    assert main(["export", name, "out.pt2", *options]) == 0
    assert not [operator for operator in operators(torch.export.load("out.pt2")) if "batch_norm" in operator]
    assert main(["export", name, "out.onnx", *options]) == 0  # where torch would fold these norms too
    assert "BatchNormalization" not in onnx_nodes("out.onnx")
    model = models.build(name, models.find(name))
    models.randomize(model)
    x = torch.randn(2, 3, 64, 64)
    assert_equal([run(model, (x,))], onnx_outputs("out.onnx", x), rtol=1e-4)
