"""The names in the state dict of a fused model go by what it is, and not by the numbers in it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.export import export

from fxfuse import fx_fuse
from tests.checkpoints.models import IMAGE, MODELS, fresh, made
from tests.support.helpers import assert_same, values

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.helpers import Structure


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_model_takes_what_a_trained_one_has_become(name: str, structure: Structure) -> None:
    trained = fx_fuse(made(name, 1), structure=structure)
    skeleton = fx_fuse(fresh(name), structure=structure)
    assert list(skeleton.state_dict()) == list(trained.state_dict())
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    skeleton.load_state_dict(torch.load(file, weights_only=True))
    x = values(*IMAGE)
    assert_same(trained, skeleton, x)


@pytest.mark.parametrize("name", ["chain", "branches", "shared"])
def test_programs_have_the_same_names(name: str) -> None:
    x = (values(*IMAGE),)
    trained, skeleton = (fx_fuse(export(model, x)) for model in (made(name, 1), fresh(name)))
    assert list(skeleton.state_dict) == list(trained.state_dict)


def test_a_file_of_safetensors_is_loaded(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    trained, skeleton = fx_fuse(made("chain", 1)), fx_fuse(fresh("chain"))
    safetensors.save_model(trained, str(tmp_path / "fused.safetensors"))
    safetensors.load_model(skeleton, str(tmp_path / "fused.safetensors"))
    x = values(*IMAGE)
    assert_same(trained, skeleton, x)


def test_norms_that_are_equal_by_chance_get_copies_of_their_own() -> None:
    fused = fx_fuse(fresh("shared"))
    assert [name for name in fused.state_dict() if name.endswith("weight")] == ["conv.weight", "conv_1.weight"]


def test_the_same_norm_twice_is_one_copy() -> None:
    model = fresh("shared")
    model.second = model.first
    assert list(fx_fuse(model).state_dict()) == ["conv.weight", "conv.bias"]


def test_a_product_leaves_no_bias() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)
            self.gain = nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.conv(x) * self.gain)

    assert list(fx_fuse(Scaled().eval()).state_dict()) == ["conv.weight"]
