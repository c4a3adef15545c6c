"""Hazard 33: arithmetic with sizes while a forward is traced: padding that hangs on the resolution."""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import FuseError, Report, fx_fuse
from fxfuse.capture.process import traced_extremes
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
    assert Report.of(fused).ok
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


# -- arguments that are computed from shapes: none is taken for a number before it is one


class Between(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.norm(self.conv(x))))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten to": lambda y: y.flatten(1, y.dim() - 1),
    "flatten from": lambda y: y.flatten(y.dim() - 3, -1),
    "unflatten": lambda y: y.unflatten(1, (2, y.size(1) // 2)),
    "unflatten along": lambda y: y.unflatten(y.dim() - 3, (2, 2)),
    "narrow from": lambda y: y.narrow(1, y.size(1) - 2, 2),
    "narrow by": lambda y: y.narrow(1, 0, y.size(1) - 2),
    "narrow along": lambda y: y.narrow(y.dim() - 3, 0, 2),
    "select": lambda y: y.select(1, y.size(1) - 1),
    "chunk": lambda y: y.chunk(y.size(1) // 2, 1)[0],
    "split": lambda y: y.split(y.size(1) - 2, 1)[1],
    "split into": lambda y: y.split([1, y.size(1) - 1], 1)[1],
    "slice": lambda y: y[:, y.size(1) - 3 :],
    "pad": lambda y: F.pad(y, (y.size(1) - 4, 0)),
    "pad by": lambda y: F.pad(y, (1, y.size(1) - 3), value=2.0),
    "roll": lambda y: y.roll(y.size(0), 2),
    "roll along": lambda y: y.roll(1, y.dim() - 1),
    "permute": lambda y: y.permute(0, y.dim() - 1, 2, 1),
    "move": lambda y: y.movedim(1, y.dim() - 1),
    "transpose": lambda y: y.transpose(1, y.dim() - 1),
    "mean": lambda y: y.mean(y.dim() - 1),
    "cat": lambda y: torch.cat([y, y], y.dim() - 3),
    "stack": lambda y: torch.stack([y, y], y.dim() - 3),
    "add with alpha": lambda y: torch.add(y, y.sigmoid(), alpha=y.size(1)),
    "add a constant with alpha": lambda y: torch.add(y, 2.0, alpha=y.size(1)),
    "expand": lambda y: y[:, :, :1].expand(-1, -1, y.size(1), -1),
    "repeat": lambda y: y.repeat(1, y.size(1) - 3, 1, 2),
    "shuffle": lambda y: F.channel_shuffle(y, y.size(1) // 2),
    "resize": lambda y: F.interpolate(y, size=(y.size(1), 3)),
    "reshape as": lambda y: y.reshape_as(y.transpose(2, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sizes", [True, False], ids=["sizes are known", "they are not"])
def test_the_result_is_the_same(name: str, sizes: bool) -> None:
    layers = {"conv": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "last": nn.Identity()}
    x = values(2, 3, 5, 6)
    model = trained(Between(**layers, function=FUNCTIONS[name]))
    fused = fx_fuse(model, x) if sizes else fx_fuse(model)
    assert_same(model, fused, x)
    affine = trained(Between(**{**layers, "norm": nn.Identity()}, function=lambda y: FUNCTIONS[name](y) * 3.0 + 1.0))
    assert_same(affine, fx_fuse(affine, x) if sizes else fx_fuse(affine), x)
