"""Tensors that cannot be written, or not as others: what is folded is right, and nobody writes into them."""

from __future__ import annotations

import mmap
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import assert_same, folds, reasons, run, trained, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.helpers import Structure

IMAGE = (2, 3, 6, 6)


def model() -> nn.Sequential:
    """A norm that goes into the layer before it, and one into the layer behind it."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)]
    return trained(nn.Sequential(*layers))


def exchanged(convert: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """The model with every parameter and buffer of a floating-point dtype converted."""
    result = model()
    for module in result.modules():
        for name, tensor in list(module._buffers.items()):
            if tensor is not None and tensor.is_floating_point():
                module._buffers[name] = convert(tensor)
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(convert(parameter.detach()), requires_grad=False)
    return result


def expanded(tensor: Tensor) -> Tensor:
    """The first element for all, in the memory of one."""
    return tensor.flatten()[:1].clone().expand(tensor.shape)


def numpy(tensor: Tensor) -> Tensor:
    """An array of NumPy that must not be written."""
    array = pytest.importorskip("numpy").array(tensor.tolist())
    array.flags.writeable = False
    with warnings.catch_warnings(action="ignore"):
        return torch.from_numpy(array)


def inference(tensor: Tensor) -> Tensor:
    """A tensor that may be written in inference mode alone."""
    with torch.inference_mode():
        return tensor.clone()


class Files:
    """Tensors that are files, mapped into memory to be read: who writes into them ends the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, tensor: Tensor) -> Tensor:
        path = self.folder / str(len(list(self.folder.iterdir())))
        path.write_bytes(bytes(tensor.reshape(-1).view(torch.uint8).tolist()))
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return torch.frombuffer(mapped, dtype=tensor.dtype).reshape(tensor.shape)


KINDS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "expanded": expanded,
    "of NumPy": numpy,
    "of inference mode": inference,
    "in a file": None,
    "as others": torch.clone,
}


@pytest.fixture(params=KINDS)
def convert(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Tensor], Tensor]:
    """Every kind of tensor."""
    return KINDS[request.param] or Files(tmp_path)


@pytest.fixture(params=[True, False], ids=["with inputs", "without"])
def inputs(request: pytest.FixtureRequest) -> Iterator[Tensor | None]:
    """With and without example inputs."""
    return values(*IMAGE) if request.param else None  # type: ignore[return-value] # a fixture


def test_what_is_folded_is_right(convert: Any, inputs: Tensor | None, structure: Structure) -> None:
    given = exchanged(convert)
    with unchanged(given):
        fused = fx_fuse(given, inputs, structure=structure)
    assert (folds(fused), reasons(fused)) == (["1", "3"], set())
    assert_same(given, fused, values(*IMAGE))


def test_what_is_folded_in_place_is_right(convert: Any, inputs: Tensor | None) -> None:
    given = exchanged(convert)
    graph_module = fx.symbolic_trace(given)
    with unchanged(given):
        fx_fuse(graph_module, inputs, inplace=True)
    assert folds(graph_module) == ["1", "3"]
    assert_same(given, graph_module, values(*IMAGE))


def test_a_buffer_of_nan_is_not_written(convert: Any, inputs: Tensor | None, structure: Structure) -> None:
    given: Any = exchanged(lambda tensor: tensor)
    given[1].running_mean = convert(given[1].running_mean.fill_(torch.nan))
    counts = not given[1].running_mean.is_inference()
    version = given[1].running_mean._version if counts else 0
    with unchanged(given):
        fused = fx_fuse(given, inputs, structure=structure)
    assert (folds(fused), reasons(fused)) == (["3"], {("1", Reason.NOT_FINITE)})
    assert run(fused, (values(*IMAGE),)).isnan().all()
    assert version == (given[1].running_mean._version if counts else 0)


@pytest.mark.parametrize("path", ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_parameter_that_is_not_finite_is_left_where_it_is(path: str, value: float, structure: Structure) -> None:
    given = model()
    given.get_parameter(path).data.view(-1)[0] = value
    with unchanged(given):
        fused = fx_fuse(given, structure=structure)
    (left,) = Report.of(fused).skipped
    assert left.path == ("3" if path == "4.weight" else "1")
    assert Reason.NOT_FINITE in (left.reason, left.downstream)
    inputs = values(*IMAGE)
    expected, result = run(given, (inputs,)), run(fused, (inputs,))
    assert torch.equal(expected.isfinite(), result.isfinite())
    assert torch.allclose(expected, result, rtol=1e-12, equal_nan=True)


class Named(Tensor):
    """A tensor of a class of its own, which may mean anything."""


@pytest.mark.parametrize("path", ["0.weight", "1.running_var", "1.weight"])
def test_a_class_of_the_users_own_is_left_alone(path: str, structure: Structure) -> None:
    given = model()
    module, _, name = path.partition(".")
    tensor = given.get_submodule(module).state_dict()[name].as_subclass(Named)
    places = given.get_submodule(module)
    if name == "running_var":
        places._buffers[name] = tensor
    else:
        places._parameters[name] = nn.Parameter(tensor)
    with unchanged(given):
        fused = fx_fuse(given, structure=structure)
    assert (folds(fused), reasons(fused)) == (["3"], {("1", Reason.NOT_FLOATING)})
    assert_same(given, fused, values(*IMAGE))
    assert Report.of(fused)
