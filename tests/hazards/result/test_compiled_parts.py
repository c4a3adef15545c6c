"""Parts of a model that are compiled fold as if they were not, and are as they were written in the result."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse, refold
from tests.hazards.blocks import batch_of
from tests.support.helpers import Model, Structure, assert_same, folds, reasons, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

X = values(2, 3, 6, 6)


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


class Parts(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class UntracedParts(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if batch_of(x) < 5 else x


PARTS: dict[str, Callable[[type[Model]], Model]] = {
    "pair": lambda cls: cls(first=compiled(pair()), second=nn.ReLU()),
    "pair in place": lambda cls: cls(first=in_place(pair()), second=nn.ReLU()),
    "convolution": lambda cls: cls(first=compiled(nn.Conv2d(3, 4, 3)), second=nn.BatchNorm2d(4)),
    "norm": lambda cls: cls(first=nn.Conv2d(3, 4, 3), second=compiled(nn.BatchNorm2d(4))),
    "both": lambda cls: cls(first=compiled(nn.Conv2d(3, 4, 3)), second=in_place(nn.BatchNorm2d(4))),
}


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("cls", [Parts, UntracedParts])
@pytest.mark.parametrize("name", PARTS)
def test_a_compiled_part_folds_and_is_as_written(name: str, cls: type[Model], structure: Structure) -> None:
    model, other = trained(PARTS[name](cls)), trained(PARTS[name](cls))
    run(model, (X,))  # so that there is compiled code
    options: dict[str, Any] = {"structure": structure} if cls is Parts else {"example_inputs": X}
    fused = fx_fuse(model, **options)
    assert_same(model, fused, X)
    assert len(folds(fused)) == 1
    assert not reasons(fused)
    assert any("compile the result" in note for note in Report.of(fused).notes)
    assert_same(other, refold(fused, other), X)
    assert_same(other, copy.deepcopy(fused), X)
    assert_same(other, compiled(fused), X)
    for tensor in (*fused.parameters(), *fused.buffers()):
        tensor.data = torch.zeros_like(tensor)
    assert not run(fused, (X,)).any()
    assert run(model, (X,)).any()


def test_a_layer_that_is_compiled_by_itself_is_checked_where_the_fold_rests_on_a_run() -> None:
    class Other(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.second(y) if batch_of(x) < 5 else y

    model = trained(Other(first=compiled(nn.Conv2d(3, 4, 3)), second=nn.BatchNorm2d(4)))
    fused = fx_fuse(model, X)
    assert folds(fused) == ["second"]
    for result in (fused, copy.deepcopy(fused)):
        with pytest.raises(FuseError, match="on the example inputs"):
            result(values(6, 3, 6, 6))


class Decorated(Model):
    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def test_a_forward_that_is_compiled_in_its_class_folds(structure: Structure) -> None:
    model = trained(Decorated(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, X)
    assert folds(fused) == ["norm"]
