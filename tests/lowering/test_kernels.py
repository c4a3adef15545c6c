"""Each kernel of the CPU gives what torch's own operations give, for every kind of layer and activation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse.lowering.activations import RELU
from fxfuse.lowering.cpu import MANY_ROWS, CpuEmitter
from fxfuse.lowering.layer import Layer, plain
from fxfuse.lowering.reading import Reading

from .models import gap, image

ACTIVATIONS: list[nn.Module] = [
    *(nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.3, 0.7), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid()),
    *(nn.Tanh(), nn.GELU(), nn.GELU("tanh"), nn.LeakyReLU(0.2)),
]


def unexpected() -> None:
    raise AssertionError("the kernel did not take the value")


def conv(axes: int, groups: int = 1, **changed: Any) -> Layer:
    numbers = {"stride": (2,) * axes, "padding": (1,) * axes, "dilation": (1,) * axes, "groups": groups}
    layer = Layer("conv", "conv", image(12, 6 // groups, *[3] * axes), image(12), **numbers)  # type: ignore[arg-type]
    return replace(layer, **changed)


def activation(module: nn.Module) -> Any:
    reading = Reading(torch.fx.symbolic_trace(nn.Sequential(module)))
    found = reading.activation(reading.nodes[1])
    assert found is not None
    return found[1]


def check(layer: Layer, *inputs: Tensor, tolerance: float = 2e-6) -> None:
    kernel = CpuEmitter().emit(layer, unexpected)
    expected = plain(layer)(*inputs)
    for _ in range(2):  # the first call packs
        assert gap(kernel(*(value.clone() for value in inputs)), expected) < tolerance


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(axes: int, groups: int) -> None:
    check(conv(axes, groups), image(2, 6, *[9] * axes))
    check(conv(axes, groups, activation=RELU, bias=None), image(2, 6, *[9] * axes))
    check(conv(axes, groups, padding=(2,) * axes, dilation=(2,) * axes), image(2, 6, *[9] * axes))


@pytest.mark.parametrize("activated", [None, activation(nn.SiLU())])
def test_one_tap_on_one_pixel(activated: Any) -> None:
    layer = conv(2, weight=image(12, 6, 1, 1), padding=(0, 0), activation=activated)
    check(layer, image(3, 6, 1, 1))
    check(layer, image(3, 12, 1, 1)[:, ::2])
    assert CpuEmitter().emit(layer, unexpected)(image(0, 6, 1, 1)).shape == (0, 12, 1, 1)
    check(layer, image(3, 6, 9, 9))
    check(replace(layer, padding=(1, 1)), image(3, 6, 1, 1))


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_activations(module: nn.Module) -> None:
    check(conv(2, activation=activation(module)), image(2, 6, 9, 9), tolerance=2e-5)
    check(Layer("linear", "fc", image(5, 6), image(5), activation=activation(module)), image(99, 6), tolerance=2e-5)
    x = image(2, 6, 9, 9)
    expected = module(plain(conv_fixed())(x))
    assert gap(plain(replace(conv_fixed(), activation=activation(module)))(x), expected) == 0


def conv_fixed() -> Layer:
    return Layer("conv", "conv", image(4, 6, 3, 3), image(4), (1, 1), (0, 0), (1, 1))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("last", [None, RELU, activation(nn.SiLU())], ids=["none", "relu", "silu"])
def test_sums(axes: int, groups: int, in_place: bool, last: Any) -> None:
    layer = conv(axes, groups, sums=True, in_place=in_place, activation=last)
    check(layer, image(2, 6, *[9] * axes), image(2, 12, *[5] * axes))


def test_a_sum_in_place_is_written_into_the_other_value() -> None:
    kernel = CpuEmitter().emit(conv(2, sums=True, in_place=True), unexpected)
    other = image(2, 12, 5, 5).contiguous(memory_format=torch.channels_last)
    assert kernel(image(2, 6, 9, 9), other).data_ptr() == other.data_ptr()
    kept = CpuEmitter().emit(conv(2, sums=True), unexpected)
    assert kept(image(2, 6, 9, 9), other).data_ptr() != other.data_ptr()


@pytest.mark.parametrize("shape", [(2, 12, 1, 1), (1, 12, 5, 5), (1, 1, 5, 5)])
def test_a_sum_that_broadcasts(shape: tuple[int, ...]) -> None:
    check(conv(2, sums=True, in_place=True, activation=RELU), image(2, 6, 9, 9), image(*shape))
    check(conv(2, sums=True), image(1, 6, 9, 9), image(3, 12, 5, 5))


@pytest.mark.parametrize("shape", [(12, 5), (5,), (1, 12, 1), (3, 1, 12, 5), ()])
def test_a_sum_along_one_axis_that_broadcasts(shape: tuple[int, ...]) -> None:
    check(conv(1, sums=True, in_place=True, activation=RELU), image(2, 6, 9), torch.randn(shape))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(axes: int, groups: int) -> None:
    weight = torch.randn(6, 8 // groups, *[3] * axes)
    numbers: dict[str, Any] = {"stride": (2,) * axes, "padding": (1,) * axes, "dilation": (1,) * axes}
    layer = Layer("transposed", "up", weight, torch.randn(8), **numbers, output_padding=(1,) * axes, groups=groups)
    check(layer, image(2, 6, *[5] * axes))
    check(replace(layer, activation=RELU), image(2, 6, *[5] * axes))


@pytest.mark.parametrize("rows", [1, MANY_ROWS - 1, MANY_ROWS, 200])
def test_linear_layers(rows: int) -> None:
    layer = Layer("linear", "fc", image(16, 24), image(16))
    check(layer, image(rows, 24))
    check(replace(layer, activation=RELU, bias=None), image(2, rows, 24))


def test_a_convolution_on_one_pixel_is_a_linear_layer() -> None:
    layer = Layer("conv", "se", image(4, 6, 1, 1), image(4), (1, 1), (0, 0), (1, 1), activation=RELU)
    check(layer, image(3, 6, 1, 1))
    check(layer, image(3, 6, 5, 5))


@pytest.mark.parametrize(("norm", "shape"), [(nn.BatchNorm1d, (7, 6)), (nn.BatchNorm1d, (7, 6, 5))])
def test_norms(norm: type[nn.Module], shape: tuple[int, ...]) -> None:
    module: Any = norm(6).eval().requires_grad_(requires_grad=False)
    scale = (module.running_var + module.eps).rsqrt()
    layer = Layer("norm", "bn", scale, None, norm=module.forward, ranks=(2, 3), activation=RELU)
    check(layer, image(*shape))


@pytest.mark.parametrize("groups", [1, 2])
def test_what_does_not_fit_runs_in_torch(groups: int) -> None:
    missed: list[str] = []
    layer = conv(2, groups, activation=RELU)
    kernel = CpuEmitter().emit(layer, lambda: missed.append("conv"))
    unbatched = image(6, 9, 9)
    assert torch.equal(kernel(unbatched), plain(layer)(unbatched))
    assert missed == ["conv"]
    with pytest.raises(RuntimeError, match="should be the same"):
        kernel(image(2, 6, 9, 9).double())
    assert kernel(image(0, 6, 9, 9)).shape == (0, 12, 5, 5)


def test_layers_without_a_kernel_say_why() -> None:
    obstacle = CpuEmitter().obstacle
    assert "float64" in obstacle(conv(2, weight=torch.randn(12, 6, 3, 3).double(), bias=None))
    assert "different dtypes" in obstacle(conv(2, bias=torch.randn(12).double()))
    up = Layer("transposed", "up", image(4, 1, 3, 3), None, (2, 2), (0, 0), (1, 1), (0, 0), groups=4)
    assert "depth-wise transposed" in obstacle(up)
    assert "output padding" in obstacle(replace(up, groups=1, stride=(1, 1), dilation=(2, 2), output_padding=(1, 1)))


@pytest.mark.parametrize("size", [5, 9, 32])
@pytest.mark.parametrize("batch", [1, 3])
def test_weights_that_were_packed_for_one_size_are_right_at_another(size: int, batch: int) -> None:
    for layer in (conv(2), conv(2, 6), conv(2, activation=RELU)):
        kernel = CpuEmitter().emit(layer, unexpected)
        kernel(image(1, 6, 17, 17))
        x = image(batch, 6, size, size)
        assert gap(kernel(x), plain(layer)(x)) < 2e-6


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 4, 40])
def test_convolutions_of_one_tap(axes: int, size: int) -> None:
    one: dict[str, Any] = {
        "weight": image(120, 60, *[1] * axes),
        "bias": image(120),
        "stride": (1,) * axes,
        "padding": (0,) * axes,
    }
    for layer in (conv(axes, **one), conv(axes, **one, activation=RELU), conv(axes, **{**one, "stride": (2,) * axes})):
        check(layer, image(2, 60, *[size if axes < 3 else min(size, 9)] * axes))
