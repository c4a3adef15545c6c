"""Hazard 33: arithmetic with sizes while a forward is traced: padding that hangs on the resolution."""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import FuseError, Report, fx_fuse
from fxfuse.capture.patches import traced_extremes
from tests.support.helpers import Model, Structure, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


def needed(size: Any, kernel: int, stride: int) -> Any:
    """TensorFlow's rule: as much padding as gives ceil(size / stride) positions."""
    if isinstance(size, Tensor):
        raise TypeError("sizes are numbers")
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


class Same(nn.Conv2d):
    """A convolution that pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.size()[-2:]
        height, width = needed(height, 3, 2), needed(width, 3, 2)
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class Half(Model):
    """As Same, with sizes that are asked for one by one."""

    def forward(self, x: Tensor) -> Tensor:
        rows = min(x.shape[2], x.size(-1))
        y: Tensor = self.norm(self.conv(x[:, :, :rows]))
        return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "same": lambda: nn.Sequential(Same(3, 4, 3, stride=2), nn.BatchNorm2d(4)),
    "cropped": lambda: Half(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_every_resolution(structure: Structure, name: str) -> None:
    model = trained(MODELS[name]())
    fused = fx_fuse(model, structure=structure)
    # A convolution that is called as a function cannot get other weights where its class is kept.
    assert bool(Report.of(fused)) is (structure == "graph" or name == "cropped")
    for size in ((7, 8), (8, 9), (5, 6), (12, 5)):
        assert_same(model, fused, values(2, 3, *size))


def test_the_whole_is_a_graph() -> None:
    assert isinstance(fx_fuse(trained(MODELS["same"]())), fx.GraphModule)


class Branches(Model):
    """What is compared is no size."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        largest: Any = max(y.sum(), values(1)[0])
        return y * largest + (y if isinstance(x.size(0), int) else -y)


def test_the_larger_of_values_is_no_node() -> None:
    model = trained(Branches(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    fused = fx_fuse(model)
    assert not isinstance(fused, fx.GraphModule)
    for x in (values(2, 3, 5, 5), -values(2, 3, 5, 5)):
        assert_same(model, fused, x)


def test_the_builtins_are_what_they_were() -> None:
    before = (builtins.max, builtins.min)
    fx_fuse(trained(MODELS["same"]()))
    with pytest.raises(FuseError):
        fx_fuse(Raises(conv=nn.Conv2d(3, 4, 3)), structure="graph")
    assert (builtins.max, builtins.min) == before


class Raises(Model):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"never works, not on {x}")


def classes_of_a_maximum(x: Tensor) -> Any:
    return 2 if isinstance(max(x.shape[-1] / 8, 1), int) else 3


def class_of_arithmetic(x: Tensor) -> Any:
    return 2 if isinstance(x.dim() - 2, int) else 3


def looked_up(x: Tensor) -> Any:
    return {4: 2.0, 3: 5.0}.get(x.ndim, 3.0)


class Times(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y * self.factor(x)


@pytest.mark.parametrize("factor", [classes_of_a_maximum, class_of_arithmetic, looked_up])
def test_questions_about_numbers(structure: Structure, factor: Callable[[Tensor], Any]) -> None:
    model = trained(Times(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    model.factor = factor  # type: ignore[assignment] # a plain attribute
    fused = fx_fuse(model, structure=None if structure == "graph" else structure)
    for width in (16, 6):
        assert_same(model, fused, values(2, 3, 5, width))


def test_the_builtins_stay_as_they_are() -> None:
    before = (builtins.max, builtins.min)

    class Looks(Same):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((builtins.max, builtins.min))
            return super().forward(x)

    seen: list[Any] = []
    model = trained(nn.Sequential(Looks(3, 4, 3, stride=2), nn.BatchNorm2d(4)))
    assert folds(fx_fuse(model)) == ["1"]
    assert set(seen) == {before}
    assert "max" not in globals()
    assert (builtins.max, builtins.min) == before


def test_traces_that_overlap() -> None:
    model = nn.Sequential(Same(3, 4, 3, stride=2))
    one, other = traced_extremes(model), traced_extremes(model)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert max(2, 3) == 3
    other.__exit__(None, None, None)
    assert "max" not in globals()
