"""Linear layers that are written as products with a parameter, and quotients that are rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import STRUCTURES, Model, Structure, assert_fuses, assert_same, folds, trained, values
from tests.support.samples import graph_text, lines, parameter


class Product(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x @ self.w + self.b)


class Method(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.matmul(self.w).add(self.b))


class Transposed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.matmul(x, self.w.t()))


class Summed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.einsum("bi,io->bo", x, self.w) + self.b)


class SummedTransposed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.einsum("oi,bi->bo", self.w, x))


class SummedComputed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.einsum("bi,oi->bo", x, self.w.t()))


class Dotted(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.tensordot(x, self.w, dims=([-1], [1])))


CASES = [
    (Product, (3, 4)),
    (Method, (3, 4)),
    (Transposed, (4, 3)),
    (Summed, (3, 4)),
    (SummedTransposed, (4, 3)),
    (SummedComputed, (3, 4)),
    (Dotted, (4, 3)),
]


@pytest.mark.parametrize(("cls", "shape"), CASES)
@pytest.mark.parametrize("way", ["inputs", "exported"])
def test_a_norm_folds_into_a_product(cls: type[Model], shape: tuple[int, int], way: str) -> None:
    model = trained(cls(w=parameter(*shape), b=parameter(4, seed=1), bn=nn.BatchNorm1d(4)))
    x = values(5, 3)
    if way == "inputs":
        fused: Any = fx_fuse(model, x)
        assert "linear" in str(fused.graph)
    else:
        program = fx_fuse(torch.export.export(model, (x,)))
        assert not Report.of(program).skipped
        fused = program.module()
    assert_same(model, fused, x)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in fused.modules())


class Mixed(Model):
    """An affine of a convolution, written in three other ways."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addcmul(self.b, self.conv(x), self.w)
        z = torch.lerp(self.conv2(x), self.b, 0.25)
        return y.sin() + z.cos() + torch.addcdiv(self.b, self.conv3(x), self.w).sin()


class Unknown(Model):
    """Two operands are values, or the value divides."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.addcmul(self.b, y, x) + torch.lerp(self.b, self.w, y) + torch.addcdiv(self.b, self.w, y)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_arithmetic_of_a_value_with_two_constants_folds(structure: Structure) -> None:
    layers = {f"conv{n}": nn.Conv2d(3, 3, 1) for n in ("", 2, 3)}
    model = trained(Mixed(**layers, w=parameter(3, 1, 1), b=parameter(3, 1, 1, seed=1)))
    x = values(2, 3, 4, 4)
    folded = ["addcdiv", "addcmul", "lerp"]
    assert_fuses(model, x, folded=folded, structure=structure)
    program = fx_fuse(torch.export.export(model, (x,)))
    assert folds(program.graph_module) == folded
    assert_same(model, program.module(), x)


def test_arithmetic_of_two_values_stays() -> None:
    model = trained(Unknown(conv=nn.Conv2d(3, 3, 1), w=parameter(3, 1, 1), b=parameter(3, 1, 1, seed=1)))
    assert_fuses(model, values(2, 3, 4, 4))


def test_before_and_after() -> None:
    class Biased(Model):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ self.w + self.b)

    model = Biased(w=parameter(3, 4), b=parameter(4, seed=1)).eval()
    assert graph_text(assert_fuses(model, values(5, 3), folded=["add"])) == lines("""
        x = <input>
        w_1 = self.w
        bias = self.bias
        matmul = linear(x, w_1, bias)
        relu = relu(matmul)
        return relu
    """)


class Left(Model):
    """The constant is the left factor: its rows are no channels along the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.w @ x)


class Batches(Model):
    """A matrix for each of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x @ self.w)


class SummedLeft(Model):
    """The channels of the result are not its last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.einsum("bil,io->bol", x, self.w))


class SummedTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.einsum("bil,lil->bil", x, self.w))


class DottedTwice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.tensordot(x, self.w, dims=2))


class Rounded(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.div(self.bn(x), self.w, rounding_mode="floor")


@pytest.mark.parametrize(
    ("cls", "weight", "norm", "x"),
    [
        (Left, (4, 3), 4, (2, 3, 5)),
        (Batches, (2, 3, 5), 6, (2, 6, 3)),
        (SummedLeft, (3, 4), 4, (2, 3, 5)),
        (SummedTwice, (5, 3, 5), 3, (2, 3, 5)),
        (DottedTwice, (3, 5, 4), 4, (2, 3, 5)),
        (Rounded, (4, 1), 4, (2, 4, 5)),
    ],
)
def test_what_is_no_linear_layer_keeps_its_norm(
    cls: type[Model], weight: tuple[int, ...], norm: int, x: tuple[int, ...]
) -> None:
    model = trained(cls(w=parameter(*weight), bn=nn.BatchNorm1d(norm)))
    fused = fx_fuse(model, values(*x))
    assert not Report.of(fused).folded
    assert_same(model, fused, values(*x))


def test_a_matrix_that_is_read_twice_gets_a_copy() -> None:
    class Tied(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x @ self.w + self.b) @ self.w.t()

    model = trained(Tied(w=parameter(3, 4), b=parameter(4, seed=1), bn=nn.BatchNorm1d(4)))
    x = values(5, 3)
    assert_same(model, fx_fuse(model, x), x)
