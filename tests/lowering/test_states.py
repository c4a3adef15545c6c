"""A lowered model after errors, on another device, and what it holds in memory."""

from __future__ import annotations

import collections
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse, lower
from fxfuse.lowering.cpu import Packed
from tests.support.helpers import Model

from .models import Block, Net, fast, gap, image

FELL_BACK = "ran as the fused one does"


def test_an_error_in_the_middle_leaves_nothing_behind() -> None:
    class Stopping(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x))
            return y + self.b(x).view(2, 4, 30, 30)

    x = image()
    model = fast(Stopping(a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 4, 3)), x)
    before, expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model(x)
    for wrong in (image(2, 3, 8, 8), image(2, 4, 32, 32), image(3, 3, 32, 32)):
        kept = wrong.clone()
        with pytest.raises(RuntimeError):
            model.fused(wrong)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                model(wrong)
        assert torch.equal(wrong, kept)
        assert not torch.is_grad_enabled() or not model(x).requires_grad
        assert torch.equal(model(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_on_another_device_it_is_as_the_fused_model() -> None:
    model = fast(Net(), image()).to("meta")
    with pytest.warns(UserWarning, match=FELL_BACK):
        result = model(image().to("meta"))
    assert result.is_meta
    assert result.shape == (2, 10)
    assert not Report.of(model).kernels  # type: ignore[attr-defined]


def test_2_memory_is_the_packed_weights_and_nothing_else() -> None:
    model = fast(Net(), image())
    weights = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    forward: Any = model._runner.current().forward
    bound = [one for one in vars(forward.__self__).values() if inspect.isfunction(one)]
    cells = [cell.cell_contents for one in bound for cell in one.__closure__ or ()]
    packed = [cell.value for cell in cells if isinstance(cell, Packed) and cell.value is not None]
    assert sum(value.numel() for value in packed) <= sum(weights.values())
    assert len(packed) == 8  # all but the last layer, which has few rows
    held = [cell for cell in cells if isinstance(cell, Tensor)]
    assert {tensor.data_ptr() for tensor in held} <= set(weights)


def test_layers_that_are_left_say_why() -> None:
    layers = {"a": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "b": nn.Conv2d(4, 4, 3, padding="same")}
    given = nn.Sequential(collections.OrderedDict(c=nn.Conv2d(4, 4, 1), **layers))
    model = lower(fx_fuse(given.eval(), rules=[]), image(2, 4, 6, 6))
    found: Any = Report.of(model)
    assert {one.path: one.left for one in found.left} == {
        "a": "it pads in the mode 'reflect'",
        "b": "its padding is a word",
    }
    assert "stays" in str(found)
    assert found.to_dict()["lowered"][0]["path"] == "c"


def test_exported_graphs() -> None:
    x = image(2, 8, 8, 8)
    exported: Any = fx_fuse(torch.export.export(Block(8, 8).eval(), (x,)))
    with pytest.raises(FuseError, match=r"program\.module\(\)"):
        lower(exported)
    model = exported.module()
    found = lower(model, x)
    assert gap(found(x), model(x)) < 1e-6
    assert [one.takes for one in Report.of(found).kernels] == [("relu",), ("sum", "relu")]  # type: ignore[attr-defined]
