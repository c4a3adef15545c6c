"""Hazards 30, 32: the result is called as the model was, on inputs of any size, and gives the same classes."""

from __future__ import annotations

import collections
import dataclasses
import inspect
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import (
    Model,
    Structure,
    assert_equal,
    assert_fuses,
    assert_same,
    folds,
    run,
    trained,
    unchanged,
    values,
)

INPUTS = (2, 3, 6, 6)


def net(cls: type[Model], **more: Any) -> Any:
    return trained(cls(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), **more))


# -- outputs


@dataclasses.dataclass
class Record:
    out: Tensor
    size: int = 0
    more: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    out: Tensor
    aux: Tensor | None


class Output(collections.OrderedDict[str, Any]):
    """As in libraries of transformers: a dictionary of which the entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


OUTPUTS: dict[str, Any] = {
    "tuple": lambda y: (y, y + 1),
    "list": lambda y: [y, [y + 1]],
    "dict": lambda y: {"out": y, "more": {"aux": (y + 1, 3, None)}},
    "OrderedDict": lambda y: collections.OrderedDict(out=y, aux=y + 1),
    "NamedTuple": lambda y: Pair(y, None),
    "dataclass": lambda y: Record(y, 3, (y + 1,)),
    "constants": lambda y: (y, "text", 3, 2.5, None, True),
}


class Returns(Model):
    def forward(self, x: Tensor) -> Any:
        return self.make(self.bn(self.conv(x)))


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_structure_of_the_output_is_kept(structure: Structure, name: str) -> None:
    model = net(Returns, make=OUTPUTS[name])
    assert_fuses(model, values(*INPUTS), folded=["bn"], structure=structure)


@pytest.mark.parametrize("inputs", [None, values(*INPUTS)])
def test_a_class_of_dictionaries_is_kept(inputs: Tensor | None) -> None:
    last = Returns(conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4), make=lambda y: Output(out=y))
    model = trained(nn.Sequential(net(Returns, make=torch.relu), last))
    with unchanged(model):
        fused = fx_fuse(model, inputs)
    assert_same(model, fused, values(*INPUTS))
    assert run(fused, (values(*INPUTS),)).out.shape == (2, 4, 4, 4)
    assert "0.bn" in folds(fused)
    assert inputs is None or "pass example_inputs" not in str(Report.of(fused)), "they were passed"


# -- calls


class Called(Model):
    def forward(self, image: Tensor, scale: float = 2.0, *, shift: Tensor | None = None) -> Tensor:
        y = self.bn(self.conv(image)).sigmoid() * scale
        return y if shift is None else y + shift


def assert_equal_calls(model: nn.Module, fused: nn.Module, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad():
        assert_equal(model(*args, **kwargs), fused(*args, **kwargs))


def test_names_and_defaults_of_arguments_are_kept(structure: Structure) -> None:
    model, x = net(Called), values(*INPUTS)
    fused = assert_fuses(model, x, folded=["bn"], structure=structure)
    assert list(inspect.signature(fused.forward).parameters) == ["image", "scale", "shift"]
    assert_equal_calls(model, fused, x, 2.0)
    assert_equal_calls(model, fused, image=x)
    assert_equal_calls(model, fused, shift=None, scale=2.0, image=x)


@pytest.mark.parametrize("name", ["scale", "shift"])
def test_other_values_of_optional_arguments_are_an_error(structure: Structure, name: str) -> None:
    model, x, other = net(Called), values(*INPUTS), {"scale": 3.0, "shift": values(4, 1, 1)}[name]
    fused = assert_fuses(model, x, folded=["bn"], structure=structure)
    with pytest.raises(ValueError, match=name):
        fused(x, **{name: other})


WRONG: list[dict[str, Any]] = [{}, {"x": 1}, {"image": 1, "more": 2}]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_calls_are_type_errors(structure: Structure, wrong: dict[str, Any]) -> None:
    fused = assert_fuses(net(Called), values(*INPUTS), folded=["bn"], structure=structure)
    with pytest.raises(TypeError, match="argument"):
        fused(**wrong)


# -- other sizes than the example's


class Reshapes(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y.view(y.size(0), -1) + y.shape[2] * y.size(-1)


@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (5, 3, 9, 4), (2, 3, 3, 3)])
def test_other_batches_and_resolutions_than_the_examples(structure: Structure, shape: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"structure": structure, "example_inputs": values(*INPUTS)}
    assert_fuses(net(Reshapes), values(*shape), folded=["bn"], **options)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_batch_of_one_is_no_other_rank(structure: Structure, rank: int) -> None:
    layer, norm = [nn.Linear(3, 4), nn.Conv1d(3, 4, 3)][rank - 2], nn.BatchNorm1d(4)
    model = trained(nn.Sequential(layer, norm))
    options: dict[str, Any] = {"structure": structure, "example_inputs": values(*(1, 3, 7)[:rank])}
    assert_fuses(model, values(*(5, 3, 9)[:rank]), folded=["1"], **options)
